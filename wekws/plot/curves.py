"""Figure of training curves: losses and accuracies by epoch, runs overlaid."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from wekws.errors import DataError
from wekws.plot import style
from wekws.runlog.fields import BEFORE_FIRST_STEP, Row
from wekws.runlog.metrics_reader import read_cv_rows, series


@dataclass(frozen=True)
class _Panel:
    """One panel of the figure."""

    title: str
    """Title."""
    solid: str
    """Field of the cv rows that is drawn as a solid line."""
    dashed: str
    """Field that is drawn dashed; empty for none."""
    note: str
    """Explanation under the title."""
    is_percent: bool = False
    """Whether the fields are shares, shown in percent."""


_PANELS = (
    _Panel("cv loss", "cv_loss", "", "CTC on the cv set; start: before the first step"),
    _Panel(
        "Token accuracy (%)", "cv_accuracy", "cv_keyword_accuracy",
        "solid: all cv utterances; dashed: those with a keyword", True,
    ),
    _Panel("CTC", "train_ctc", "cv_loss", "solid: training, mean of the epoch; dashed: cv"),
    _Panel("Distillation (KD)", "train_kd", "cv_kd", "solid: training; dashed: cv"),
)  # fmt: skip


def plot_curves(
    model_dirs: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    mark_ends: bool = False,
) -> None:
    """Draw ``metrics.jsonl`` of the runs (name -> folder); a field that no run has is left out.

    mark_ends: draw a dotted line in the first panel at each run's last cv loss.
    Raises: DataError if a run has no metrics.
    """
    runs = {name: read_cv_rows(folder) for name, folder in model_dirs.items()}
    panels = [panel for panel in _PANELS if _has_values(panel, runs)]
    if not panels:
        raise DataError(f"{', '.join(runs)}: no cv row has a figure to draw")
    last_epoch = max(int(rows[-1]["epoch"]) for rows in runs.values())
    num_columns = 3 if len(panels) == 3 else min(2, len(panels))
    num_rows = -(-len(panels) // num_columns)
    width = (5.3 if num_columns < 3 else 4.4) * num_columns
    with style.saved_figure(path, width, 3.5 * num_rows + 0.6) as figure:
        axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel, runs, last_epoch)
            if mark_ends and panel.solid == "cv_loss":
                _mark_ends(axis, runs)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        style.legend_below(figure, _legend(list(runs)), width)


def _has_values(panel: _Panel, runs: Mapping[str, list[Row]]) -> bool:
    """Say whether any run has the field; a term that is 0 throughout was not in use."""
    return any(any(series(rows, panel.solid)[1]) for rows in runs.values())


def _draw_panel(axis: Axes, panel: _Panel, runs: Mapping[str, list[Row]], last_epoch: int) -> None:
    shown: list[float] = []
    for index, rows in enumerate(runs.values()):
        colour = style.PALETTE[index % len(style.PALETTE)]
        for key, dash in ((panel.solid, "-"), (panel.dashed, (0, (4, 2)))):
            epochs, values = series(rows, key)
            if not any(values):
                continue
            values = [100 * value for value in values] if panel.is_percent else values
            marker = "o" if len(values) <= 25 and dash == "-" else ""
            axis.plot(epochs, values, color=colour, linestyle=dash, marker=marker, markersize=4)
            if len(values) == 1:
                axis.plot(epochs, values, color=colour, marker="o", markerfacecolor="white")
            shown += values
    axis.set_title(panel.title, loc="left", pad=20)
    style.note_above(axis, panel.note)
    _format_axes(axis, shown, last_epoch, panel.is_percent)


def _mark_ends(axis: Axes, runs: Mapping[str, list[Row]]) -> None:
    for index, rows in enumerate(runs.values()):
        _, losses = series(rows, "cv_loss")
        colour = style.PALETTE[index % len(style.PALETTE)]
        if losses:
            axis.axhline(losses[-1], color=colour, linestyle=":", linewidth=1.0)


def _format_axes(axis: Axes, shown: Sequence[float], last_epoch: int, is_percent: bool) -> None:
    axis.set_xlim(BEFORE_FIRST_STEP - 0.4, max(last_epoch, 1) + 0.6)
    inner = MaxNLocator(integer=True, nbins=7, min_n_ticks=1).tick_values(0, max(last_epoch, 1))
    ticks = [tick for tick in inner if 0 <= tick <= max(last_epoch, 1)]
    crowded = last_epoch > 12
    axis.set_xticks([BEFORE_FIRST_STEP, *(ticks[1:] if crowded else ticks)])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "start" if x < 0 else f"{x:g}"))
    axis.set_xlabel("Epoch")
    if is_percent:
        axis.set_ylim(min(0.0, *shown) if min(shown) > -20 else -20, 102)
    elif min(shown) > 0 and max(shown) / min(shown) > 8:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 3, 5), numticks=12))
        axis.yaxis.set_minor_locator(LogLocator(base=10, subs=(1,), numticks=2))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        axis.set_ylim(bottom=min(0.0, *shown) if min(shown) < 0.5 * max(shown) else None)


def _legend(names: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=style.PALETTE[i % len(style.PALETTE)], linewidth=2.4, label=label)
        for i, label in enumerate(style.readable(name, 40) for name in names)
    ]
