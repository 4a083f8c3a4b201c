"""Draw the durations of the utterances of each split from ``validation.json``."""

import argparse
import sys
from collections.abc import Sequence

from wekws.log import run
from wekws.plot.durations import plot_durations


def main(argv: Sequence[str] | None = None) -> int:
    """Read the durations and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--validation", required=True, help="validation.json, written by validate_data"
    )
    parser.add_argument("--out", required=True, help="figure to write: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    plot_durations(args.validation, args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
