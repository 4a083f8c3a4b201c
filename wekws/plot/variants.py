"""What came of the variants of a plan: each run a dot, each variant's mean with its interval."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from wekws.plot import style
from wekws.report.comparison import GroupFigures
from wekws.score.paired import Estimate


def plot_comparison(
    figures: Sequence[GroupFigures],
    path: str | os.PathLike[str],
    *,
    title: str,
    label: str,
    compare_to: str,
) -> None:
    """Draw a line a variant: FRR at the budget ``label``, and cv loss at the end of training."""
    height = 1.9 + 0.34 * len(figures)
    with style.saved_figure(path, 12.0, height) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        figure.suptitle(style.readable(title, 100), x=0.01, ha="left", fontsize=12)
        for place, group in enumerate(figures):
            colour = style.PALETTE[1 if group.name == compare_to else 0]
            runs = [100 * rate for rate in group.frr_of_runs[label]]
            _dots(left, place, runs, colour)
            _mean(left, place, group.frr[label], colour)
            if group.losses_end:
                _dots(right, place, group.losses_end, colour)
                mean = sum(group.losses_end) / len(group.losses_end)
                right.plot([mean], [place], "D", color=colour, markersize=6)
        basis = next(group for group in figures if group.name == compare_to)
        left.axvline(100 * basis.frr[label].value, color=style.GUIDE, linewidth=0.9, linestyle=":")
        left.set_yticks(range(len(figures)), [style.readable(g.name, 46) for g in figures])
        left.set_ylim(len(figures) - 0.5, -0.5)
        left.set_xlabel(f"FRR % at {label} of its own curve; bar: 95 % interval")
        right.set_xlabel("cv loss at the end, CTC in nats an utterance")
        _set_rates(left, [100 * group.frr[label].value for group in figures])


def _set_rates(axis: Any, rates: Sequence[float]) -> None:
    """Begin the axis at 0, or make it logarithmic where one variant dwarfs the others."""
    lowest = min(rates)
    if not lowest > 0.0 or max(rates) < 8.0 * lowest:
        axis.set_xlim(left=0)
        return
    axis.set_xscale("log")
    axis.set_xlim(left=0.25 * lowest)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _dots(axis: Any, place: int, values: Sequence[float], colour: str) -> None:
    axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=4.5)


def _mean(axis: Any, place: int, found: Estimate, colour: str) -> None:
    low, high = 100 * (found.value - found.low), 100 * (found.high - found.value)
    axis.errorbar(
        [100 * found.value], [place], xerr=[[max(0.0, low)], [max(0.0, high)]], fmt="D",
        color=colour, markersize=6, elinewidth=1.6, capsize=0,
    )  # fmt: skip


def plot_sweep(
    points: Sequence[tuple[float, GroupFigures]],
    references: Sequence[GroupFigures],
    path: str | os.PathLike[str],
    *,
    title: str,
    key: str,
    label: str,
) -> None:
    """Draw FRR and cv loss against the values of one setting and mark where each is lowest.

    references: groups that do not have the setting, such as the teacher: lines across.
    """
    ordered = sorted(points, key=lambda point: point[0])
    values = [value for value, _ in ordered]
    with style.saved_figure(path, 11.0, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        figure.suptitle(style.readable(title, 100), x=0.01, ha="left", fontsize=12)
        rates = [[100 * rate for rate in group.frr_of_runs[label]] for _, group in ordered]
        low = [100 * group.frr[label].low for _, group in ordered]
        high = [100 * group.frr[label].high for _, group in ordered]
        left.fill_between(values, low, high, color=style.PALETTE[0], alpha=0.15, linewidth=0)
        losses = [list(group.losses_end) for _, group in ordered]
        _line(left, values, rates, "{:.2f} %".format)
        _line(right, values, losses, "{:.2f}".format)
        for style_index, group in enumerate(references):
            line = {"linestyle": (":", "--", "-.")[style_index % 3], "color": style.GUIDE}
            left.axhline(100 * group.frr[label].value, label=group.name, **line)
            if group.losses_end:
                mean = sum(group.losses_end) / len(group.losses_end)
                right.axhline(mean, label=group.name, **line)
        if references:
            style.legend_below(figure, left.get_legend_handles_labels()[0], 11.0)
        left.set_ylabel(f"FRR % at {label} of its own curve")
        right.set_ylabel("cv loss at the end (CTC, nats)")
        for axis in (left, right):
            axis.set_xlabel(key)


def _line(
    axis: Any,
    values: Sequence[float],
    runs: Sequence[Sequence[float]],
    name: Callable[[float], str],
) -> None:
    means = [sum(row) / len(row) for row in runs]
    axis.plot(values, means, "-o", color=style.PALETTE[0], linewidth=1.8)
    for value, row in zip(values, runs, strict=True):
        axis.plot([value] * len(row), row, "o", color=style.PALETTE[0], alpha=0.3, markersize=4)
    best = min(range(len(means)), key=means.__getitem__)
    # At an end of the curve the text runs inwards, clear of the axis.
    side = {0: "left", len(means) - 1: "right"}.get(best, "center")
    axis.plot([values[best]], [means[best]], "o", color=style.PALETTE[1], markersize=9)
    axis.annotate(
        f"lowest: {name(means[best])} at {values[best]:g}", (values[best], means[best]),
        xytext=(0, -18), textcoords="offset points", color=style.PALETTE[1], ha=side,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
    )  # fmt: skip
    axis.margins(x=0.14, y=0.25)
