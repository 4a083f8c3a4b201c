"""Compute the error rates of a scored set: stats.<keyword>.txt, summary.json and summary.md."""

import argparse
import sys
from pathlib import Path

from wekws.bin.threshold_flags import add_threshold_flags, threshold_options
from wekws.dataset.vocabulary import read_keywords
from wekws.log import run
from wekws.score.det import budgets_from_text
from wekws.score.summary import summarise
from wekws.score.summary_file import summary_to_markdown


def main(argv: list[str] | None = None) -> int:
    """Write the error rates and print the summary."""
    args = _parser().parse_args(argv)
    summary = summarise(
        args.result_dir,
        dev_result_dir=args.dev_result_dir,
        data_list=args.test_data,
        keywords=read_keywords(args.keywords_file) if args.keywords_file else None,
        budgets=budgets_from_text(args.budgets),
        options=threshold_options(args),
    )
    print(summary_to_markdown(summary))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--result_dir", type=Path, required=True,
        help="folder that score_ctc wrote; the error rates are written into it",
    )  # fmt: skip
    add("--test_data", type=Path, help="data.list of the scored set [the list that was scored]")
    add("--keywords_file", type=Path, help="keywords to evaluate [all that were scored]")
    add(
        "--dev_result_dir", type=Path,
        help="scores of dev, to choose thresholds on [thresholds are chosen on the set itself]",
    )  # fmt: skip
    add(
        "--budgets", default="0.5,1",
        help="false alarms per hour, separated by commas [%(default)s]; "
        "one false alarm in all is always added",
    )  # fmt: skip
    add_threshold_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
