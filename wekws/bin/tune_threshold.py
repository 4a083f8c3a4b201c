"""Choose a threshold per keyword on dev for a budget of false alarms; write them beside the model.

python -m wekws.bin.tune_threshold --dev_result_dir exp/X/student/dev_avg_30 --budget 0.5
"""

import argparse
import logging
import sys
from pathlib import Path

from wekws.bin.threshold_flags import add_threshold_flags, threshold_options
from wekws.errors import ConfigError
from wekws.log import run
from wekws.score.det import budgets_from_text
from wekws.score.tuning import tune_thresholds

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Choose the thresholds, write them, print one line per keyword."""
    args = _parser().parse_args(argv)
    budgets = budgets_from_text(args.budget, "--budget")
    if len(budgets) != 1:
        raise ConfigError(f"--budget {args.budget}: expected one number of false alarms per hour")
    tuned = tune_thresholds(
        args.dev_result_dir,
        budget=budgets[0],
        options=threshold_options(args),
        checkpoint=args.checkpoint,
    )
    for entry in tuned.keywords:
        misses = entry["misses"]
        frr = f"no positives in {tuned.set_name}"
        if misses is not None:
            frr = f"FRR {misses['rate']:.2%} on {tuned.set_name}"
        print(f"{entry['keyword']}: threshold {entry['threshold']:.6g}, {frr}; {entry['note']}")
        if not entry["is_supported"]:
            logger.warning(
                "%s: %s cannot support %s; this is the strictest threshold that it supports",
                entry["keyword"], tuned.set_name, budgets[0].label,
            )  # fmt: skip
    print(tuned.path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--dev_result_dir", type=Path, required=True,
        help="folder that score_ctc wrote for dev; its model gets the thresholds",
    )  # fmt: skip
    add("--budget", default="0.5", help="false alarms per hour that are allowed [%(default)s]")
    add_threshold_flags(parser)
    add("--checkpoint", type=Path, help="the scored model [the file that the scores name]")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
