"""Figure of schedules: alpha over training, one panel per shape, and the temperature."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from wekws.plot import style


@dataclass(frozen=True)
class ScheduleCurve:
    """One schedule as it runs over training."""

    name: str
    """Title of the panel, or name in the legend."""
    note: str
    """Explanation under the title."""
    values: Sequence[float]
    """Values at the points of progress that are drawn."""


def plot_schedules(
    path: str | os.PathLike[str],
    *,
    progress: Sequence[float],
    alphas: Sequence[ScheduleCurve],
    temperatures: Sequence[ScheduleCurve],
    alpha_floor: float,
) -> None:
    """Draw up to six schedules of alpha, one panel each, and those of the temperature in one.

    progress: shares of training that are done, 0 to 1; the x axis.
    alpha_floor: lowest alpha, a dotted line.
    """
    with style.saved_figure(path, 13.0, 6.6) as figure:
        axes = figure.subplots(2, 4)
        panels = [axes[row, column] for row in (0, 1) for column in (0, 1, 2)]
        for axis in panels[len(alphas) :]:
            axis.set_axis_off()
        for axis, curve in zip(panels, alphas, strict=False):
            _draw_alpha(axis, progress, curve, alpha_floor)
        _draw_temperatures(axes[0, 3], progress, temperatures)
        axes[1, 3].set_axis_off()
        axes[1, 3].legend(handles=list(axes[0, 3].lines), loc="upper left", title="temperature")
        labels = ("alpha: weight of CTC", "1 - alpha: weight of distillation", "lowest alpha")
        handles = list(panels[0].lines)
        for handle, label in zip(handles, labels, strict=True):
            handle.set_label(label)
        style.legend_below(figure, handles, 13.0)


def _draw_alpha(axis: Axes, progress: Sequence[float], curve: ScheduleCurve, floor: float) -> None:
    axis.plot(progress, curve.values, color=style.PALETTE[0], linewidth=2.2)
    rest = [1.0 - alpha for alpha in curve.values]
    axis.plot(progress, rest, color=style.PALETTE[1], linewidth=1.6, linestyle=(0, (4, 2)))
    axis.axhline(floor, color=style.GUIDE, linewidth=0.8, linestyle=":")
    axis.set_ylim(-0.03, 1.03)
    _finish(axis, curve.name, curve.note)


def _draw_temperatures(
    axis: Axes, progress: Sequence[float], curves: Sequence[ScheduleCurve]
) -> None:
    for index, curve in enumerate(curves):
        colour = style.PALETTE[2 + index]
        axis.plot(progress, curve.values, color=colour, linewidth=2.0, label=curve.name)
    axis.set_ylim(0, 1.2 * max(max(curve.values) for curve in curves))
    _finish(axis, "temperature", "the same shapes, other values")


def _finish(axis: Axes, title: str, note: str) -> None:
    axis.set_title(title, loc="left", pad=20)
    style.note_above(axis, note)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xlabel("of training")
