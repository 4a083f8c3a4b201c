"""Draw distributions of confidences of one or several models from their result folders."""

import argparse
import sys
from collections.abc import Sequence

from wekws.bin.named_dirs import parse_named_dirs
from wekws.log import run
from wekws.plot.confidence import plot_confidence
from wekws.score.results import read_result


def main(argv: Sequence[str] | None = None) -> int:
    """Read the results and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--result_dirs", nargs="+", required=True, metavar="NAME=DIR",
        help="result folders, in the order of drawing",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="figure to write: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    named = parse_named_dirs(args.result_dirs)
    plot_confidence([read_result(name, path) for name, path in named.items()], args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
