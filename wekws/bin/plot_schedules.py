"""Draw every shape that a loss weight or a temperature can take over training."""

import argparse
import sys
from collections.abc import Sequence

from wekws.distill.distill_conf import DistillConfig
from wekws.log import run
from wekws.plot.schedules import plot_schedules


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="alpha_schedule_comparison.png", help=".png, .pdf or .svg")
    parser.add_argument("--alpha_floor", type=float, default=DistillConfig.alpha_floor)
    args = parser.parse_args(argv)
    plot_schedules(args.out, args.alpha_floor)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
