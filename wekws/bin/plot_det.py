"""Draw DET curves of one or several models from their result folders."""

import sys
from collections.abc import Sequence

from wekws.log import run
from wekws.plot.command import draw_results
from wekws.plot.det_curves import plot_det


def main(argv: Sequence[str] | None = None) -> int:
    """Read the results and write the picture."""
    print(draw_results(plot_det, __doc__, argv))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
