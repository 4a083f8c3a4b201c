"""Resolve the options of evaluate.sh and print them as shell assignments.

The script passes every option as NAME=VALUE and evaluates what is printed; a wrong option ends
here, before anything is scored.
"""

import argparse
import sys
from pathlib import Path

from wekws.config import read_assignments
from wekws.decode.duration import max_duration_from_text
from wekws.log import run
from wekws.score.evaluation_plan import (
    EvaluationOptions,
    checked_checkpoint,
    plan_evaluation,
    require_scorable,
)
from wekws.score.thresholds import ThresholdOptions, category_hours_from_text
from wekws.shell import UserPaths, assignments


def main(argv: list[str] | None = None) -> int:
    """Read the options, see what is done already, print the assignments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--caller_dir", type=Path, default=Path(), help="folder of paths [.]")
    parser.add_argument("option", nargs="*", metavar="NAME=VALUE", help="option of evaluate.sh")
    args = parser.parse_args(argv)
    options = read_assignments(EvaluationOptions, args.option)
    paths = UserPaths(args.caller_dir)
    checkpoint = checked_checkpoint(paths.find(options.checkpoint, "--checkpoint"))
    category_hours = category_hours_from_text(options.category_hours)
    plan = plan_evaluation(
        checkpoint,
        dataset=options.dataset,
        lists=paths.find(options.lists, "--lists") if options.lists else None,
        decoder=options.decoder,
        max_duration_s=max_duration_from_text(options.max_duration_s),
        budgets=options.budgets,
        options=ThresholdOptions(
            rule=options.threshold_rule,
            shared=options.shared_threshold,
            category_hours=category_hours,
        ),
    )
    require_scorable(plan, options.dataset, category_hours)
    cache_dir = paths.place(options.cache_dir) if options.cache_dir else plan.lists / "cache"
    dev_flags = ["--dev_result_dir", str(plan.dev_dir)] if plan.dev_dir else []
    print(
        assignments(
            {
                "checkpoint": checkpoint,
                "lists": plan.lists,
                "cache_dir": cache_dir,
                "keywords_file": plan.keywords_file,
                "result_dir": plan.result_dir,
                "dev_dir": plan.dev_dir,
                "dev_flags": dev_flags,
                "is_scored": plan.is_scored,
                "is_dev_scored": plan.is_dev_scored,
                "is_counted": plan.is_counted,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
