"""Resolve the options of evaluate.sh and print them as shell assignments."""

import argparse
import sys
from pathlib import Path

from wekws.bin.threshold_flags import add_threshold_flags, threshold_options
from wekws.decode.duration import max_duration_from_text
from wekws.errors import ConfigError
from wekws.log import run
from wekws.score.evaluation_plan import plan_evaluation
from wekws.shell import UserPaths, assignments


def main(argv: list[str] | None = None) -> int:
    """Read the options, see what is done already, print the assignments."""
    args = _parser().parse_args(argv)
    paths = UserPaths(args.caller_dir)
    if not args.checkpoint:
        raise ConfigError("--checkpoint: missing; averages are made by wekws.bin.average_model")
    checkpoint = paths.find(args.checkpoint, "--checkpoint")
    plan = plan_evaluation(
        checkpoint,
        dataset=args.dataset,
        lists=paths.find(args.lists, "--lists") if args.lists else None,
        decoder=args.decoder,
        max_duration_s=max_duration_from_text(args.max_duration_s),
        budgets=args.budgets,
        options=threshold_options(args),
    )
    cache_dir = paths.place(args.cache_dir) if args.cache_dir else plan.lists / "cache"
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--caller_dir", type=Path, default=Path(), help="folder of relative paths [.]")
    add("--checkpoint", required=True, help="model to evaluate: N.pt, final.pt or avg_N.pt")
    add("--dataset", choices=("test", "dev"), default="test", help="set to report on [%(default)s]")
    add("--lists", help="folder of dev/ and test/ [that of the run's training list]")
    add("--cache_dir", help="folder of cached features [cache in --lists]")
    add("--budgets", default="0.5,1", help="false alarms per hour [%(default)s]")
    add_threshold_flags(parser)
    add(
        "--decoder", choices=("keyword", "prefix_beam"), default="keyword",
        help="decoder of the posteriors [%(default)s]",
    )  # fmt: skip
    add(
        "--max_duration_s", default="auto",
        help="longest duration of a keyword in seconds; 0 = no limit; auto = by its tokens "
        "[%(default)s]",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
