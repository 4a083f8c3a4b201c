"""Figure of FRR by epoch."""

import os
from collections.abc import Collection, Sequence

from matplotlib.ticker import MaxNLocator

from wekws.plot import style


def plot_epochs(
    epochs: Sequence[int],
    rates: Sequence[tuple[str, Sequence[float | None]]],
    best: Collection[int],
    path: str | os.PathLike[str],
    budget: str,
) -> None:
    """Draw FRR in percent by epoch, one line per set.

    rates: name of a set, and its FRR (a share) for each epoch; None: not measured.
    best: epochs that are marked.
    """
    with style.saved_figure(path, 7.0, 4.0) as figure:
        axes = figure.subplots()
        for (name, values), colour in zip(rates, style.PALETTE, strict=False):
            known = [(e, 100 * v) for e, v in zip(epochs, values, strict=True) if v is not None]
            if not known:
                continue
            axes.plot(*zip(*known, strict=True), color=colour, label=name)
            marked = [point for point in known if point[0] in best]
            if marked:
                axes.plot(*zip(*marked, strict=True), color=colour, marker="o", linestyle="")
        axes.set_xlabel("Epoch")
        axes.set_ylabel(f"FRR in % at {budget}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        highest = max((100 * v for _, values in rates for v in values if v is not None), default=0)
        axes.set_ylim(0, 1.08 * highest or 1.0)
        axes.set_title("FRR by epoch", loc="left", pad=20)
        style.note_above(axes, "means over keywords, own curve of each set; dots: best by dev")
        axes.legend()
