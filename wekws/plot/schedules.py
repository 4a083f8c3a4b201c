"""The shapes of the schedules: alpha over training, and temperature beside it."""

import os
from typing import Any

from matplotlib.ticker import PercentFormatter

from wekws.distill.schedule import Schedule
from wekws.plot import style

_POINTS = [i / 200 for i in range(201)]
_NOTES = {
    "constant": "the same mix throughout",
    "linear": "here from the teacher to the labels",
    "cosine_descent": "own labels first, teacher later",
    "cosine_growth": "the teacher leads, then lets go",
    "cosine_vshape": "labels, teacher halfway, labels",
    "cosine_^shape": "teacher, labels halfway, teacher",
}


def alpha_schedules() -> dict[str, Schedule]:
    """Return every shape as alpha would take it, by name."""
    return {
        "constant": Schedule(shape="constant", start=0.7),
        "linear": Schedule(shape="linear", start=0.0, end=1.0),
        **{name: Schedule(shape=name) for name in _NOTES if name.startswith("cosine")},
    }


def temperature_schedules() -> dict[str, Schedule]:
    """Return the usual ways of a temperature."""
    return {
        "fixed": Schedule(shape="constant", start=2.0),
        "linear 6 to 3": Schedule(shape="linear", start=6.0, end=3.0),
        "cosine 6 to 3": Schedule(shape="cosine_descent", start=6.0, end=3.0),
    }


def plot_schedules(path: str | os.PathLike[str], alpha_floor: float) -> None:
    """Draw alpha's shapes, one panel each, and the temperature's.

    alpha_floor: below which alpha does not fall, so that CTC is never off.
    """
    shapes = alpha_schedules()
    with style.saved_figure(path, 13.0, 6.6) as figure:
        axes = figure.subplots(2, 4)
        places = [axes[row, column] for row in (0, 1) for column in (0, 1, 2)]
        for axis, (name, schedule) in zip(places, shapes.items(), strict=True):
            _draw_alpha(axis, name, schedule, alpha_floor)
        _draw_temperature(axes[0, 3])
        axes[1, 3].set_axis_off()
        labels = ("alpha: weight of CTC", "1 - alpha: weight of distillation", "floor of alpha")
        handles = places[0].lines
        for handle, label in zip(handles, labels, strict=True):
            handle.set_label(label)
        style.legend_below(figure, handles, 13.0)


def _draw_alpha(axis: Any, name: str, schedule: Schedule, floor: float) -> None:
    alphas = [max(floor, schedule.at(point)) for point in _POINTS]
    axis.plot(_POINTS, alphas, color=style.PALETTE[0], linewidth=2.2)
    rest = [1.0 - alpha for alpha in alphas]
    axis.plot(_POINTS, rest, color=style.PALETTE[1], linewidth=1.6, linestyle=(0, (4, 2)))
    axis.axhline(floor, color=style.GUIDE, linewidth=0.8, linestyle=":")
    axis.set_ylim(-0.03, 1.03)
    _finish(axis, name, _NOTES[name])


def _draw_temperature(axis: Any) -> None:
    for index, (name, schedule) in enumerate(temperature_schedules().items()):
        colour = style.PALETTE[2 + index]
        values = [schedule.at(point) for point in _POINTS]
        axis.plot(_POINTS, values, color=colour, linewidth=2.0)
        # Away from where the lines meet.
        place = 30 if "cosine" in name else 120
        drop = {"fixed": 7, "linear 6 to 3": -16, "cosine 6 to 3": 8}[name]
        axis.annotate(
            name, (_POINTS[place], values[place]), xytext=(0, drop), textcoords="offset points",
            color=colour, fontsize=9, ha="left" if drop > 0 else "right",
        )  # fmt: skip
    axis.set_ylim(0, 7)
    _finish(axis, "temperature", "the same shapes, other values")


def _finish(axis: Any, title: str, note: str) -> None:
    axis.set_title(title, loc="left", pad=20)
    axis.annotate(
        note, (0, 1), xytext=(0, 6), xycoords="axes fraction", textcoords="offset points",
        fontsize=8.5, color="#666666",
    )  # fmt: skip
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xlabel("of training")
