"""Write errors.html: misses and false alarms with audio, features, posteriors and confidences."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.bin.named_dirs import parse_named_dirs
from wekws.log import run
from wekws.report.error_cases import review_errors
from wekws.report.error_page import load_traced, write_error_page
from wekws.report.model_folder import read_model
from wekws.score.results import headline_budget


def main(argv: Sequence[str] | None = None) -> int:
    """Find the errors, write the page, print its path and the groups that hold most errors."""
    args = _parser().parse_args(argv)
    named = parse_named_dirs([args.student_dir, *([args.teacher_dir] if args.teacher_dir else [])])
    models = [read_model(name, folder, args.dataset) for name, folder in named.items()]
    results = [model.headline for model in models]
    budget = args.budget or headline_budget(results)
    review = review_errors(results[0], results[1] if len(results) > 1 else None, budget)
    traced = [load_traced(result) for result in results]
    path = write_error_page(review, traced, args.out_dir, num_per_kind=args.num_cases)
    for group in review.groups:
        print(group.sentence().replace("**", ""))
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--student_dir", required=True, metavar="[NAME=]DIR",
        help="folder of the model whose errors are shown",
    )  # fmt: skip
    add("--teacher_dir", metavar="[NAME=]DIR", help="folder of its teacher, to compare with")
    add("--dataset", default="test", help="read results from DIR/DATASET_* [%(default)s]")
    add("--budget", help="budget of the thresholds, such as 1/h [that of the report]")
    add(
        "--num_cases", type=int, default=40,
        help="misses, false alarms and confusions to show, the worst of each [%(default)s]",
    )  # fmt: skip
    add("--out_dir", type=Path, required=True, help="folder to write errors.html and errors/ to")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
