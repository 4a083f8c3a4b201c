"""Draw the training curves of one or several runs from their ``metrics.jsonl``."""

import argparse
import sys
from collections.abc import Sequence

from wekws.bin.named_dirs import parse_named_dirs
from wekws.log import run
from wekws.plot.curves import plot_curves


def main(argv: Sequence[str] | None = None) -> int:
    """Read the metrics and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model_dirs", nargs="+", required=True, metavar="NAME=DIR",
        help="folders of runs, in the order of drawing",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="figure to write: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    plot_curves(parse_named_dirs(args.model_dirs), args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
