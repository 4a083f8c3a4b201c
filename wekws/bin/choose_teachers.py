"""Choose among teachers that differ in the seed: all that dev cannot tell from the best.

python -m wekws.bin.choose_teachers --checkpoints exp/X/teacher/avg_5.pt exp/X/teacher_2/avg_5.pt \
    --budget 0.5 --out exp/X/teachers.txt
"""

import argparse
import logging
import sys
from pathlib import Path

from wekws.files import atomic_path
from wekws.log import run
from wekws.score.det import budgets_from_text
from wekws.score.teacher_choice import rank_teachers

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Rank the teachers, write the checkpoints that are kept, the best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="+",
        required=True,
        help="the teachers, each with its dev scores in dev_NAME beside it",
    )
    parser.add_argument(
        "--budget", default="0.5", help="false alarms per hour on dev [%(default)s]"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="file for the kept checkpoints, one per line"
    )
    args = parser.parse_args(argv)
    standings = rank_teachers(args.checkpoints, budgets_from_text(args.budget, "--budget")[0])
    for standing in standings:
        logger.info("%s", standing)
    kept = [str(standing.checkpoint) for standing in standings if standing.is_kept]
    with atomic_path(args.out) as path:
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
