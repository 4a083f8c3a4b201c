"""Draw DET curves of one or several models from their result folders."""

import argparse
import sys
from collections.abc import Sequence

from wekws.log import run
from wekws.plot.det import plot_det
from wekws.score.results import parse_named_dirs, read_result


def main(argv: Sequence[str] | None = None) -> int:
    """Read the results and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--result_dirs", nargs="+", required=True, metavar="NAME=DIR", help="in order of drawing"
    )
    parser.add_argument("--out", required=True, help="picture to write: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    named = parse_named_dirs(args.result_dirs)
    plot_det([read_result(name, path) for name, path in named.items()], args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
