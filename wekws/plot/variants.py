"""Figures of grids of runs: every run a dot, every variant's mean with its interval."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from wekws.plot import style
from wekws.score.paired import Estimate


@dataclass(frozen=True, kw_only=True)
class VariantFigures:
    """Figures of the runs of one variant; FRR is a mean over keywords at one budget."""

    name: str
    """Name of the variant."""
    params: int | None = None
    """Trainable parameters; None if unknown."""
    frr: Estimate
    """FRR, mean over the runs."""
    frr_of_runs: Sequence[float]
    """FRR of each run."""
    losses: Sequence[float]
    """Cv loss of each run at the end of training; empty if there is no log."""


def plot_comparison(
    variants: Sequence[VariantFigures],
    path: str | os.PathLike[str],
    *,
    title: str,
    budget: str,
    compare_to: str,
) -> None:
    """Draw one line per variant: FRR at the budget, and cv loss at the end of training.

    compare_to: name of the reference variant, drawn in another colour.
    """
    height = 1.9 + 0.34 * len(variants)
    with style.saved_figure(path, 12.0, height) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        figure.suptitle(style.readable(title, 100), x=0.01, ha="left", fontsize=12)
        for row, variant in enumerate(variants):
            colour = style.PALETTE[1 if variant.name == compare_to else 0]
            _dots(left, row, [100 * rate for rate in variant.frr_of_runs], colour)
            _mean(left, row, variant.frr, colour)
            if variant.losses:
                _dots(right, row, variant.losses, colour)
                mean = sum(variant.losses) / len(variant.losses)
                right.plot([mean], [row], "D", color=colour, markersize=6)
        reference = next(variant for variant in variants if variant.name == compare_to)
        left.axvline(100 * reference.frr.value, color=style.GUIDE, linewidth=0.9, linestyle=":")
        left.set_yticks(range(len(variants)), [style.readable(v.name, 46) for v in variants])
        left.set_ylim(len(variants) - 0.5, -0.5)
        left.set_xlabel(f"FRR % at {budget} of its own curve; bar: 95 % interval")
        right.set_xlabel("cv loss at the end, CTC in nats per utterance")
        _set_rates(left, [100 * variant.frr.value for variant in variants])


def _set_rates(axis: Axes, rates: Sequence[float]) -> None:
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


def _dots(axis: Axes, row: int, values: Sequence[float], colour: str) -> None:
    axis.plot(values, [row] * len(values), "o", color=colour, alpha=0.35, markersize=4.5)


def _mean(axis: Axes, row: int, found: Estimate, colour: str) -> None:
    low, high = 100 * (found.value - found.low), 100 * (found.high - found.value)
    axis.errorbar(
        [100 * found.value], [row], xerr=[[max(0.0, low)], [max(0.0, high)]], fmt="D",
        color=colour, markersize=6, elinewidth=1.6, capsize=0,
    )  # fmt: skip


def plot_sizes(
    variants: Sequence[VariantFigures], path: str | os.PathLike[str], *, title: str, budget: str
) -> None:
    """Draw FRR over the number of parameters, with each variant's name and interval.

    Variants whose size is unknown are left out.
    """
    sized = sorted(((v.params, v) for v in variants if v.params), key=lambda pair: pair[0])
    with style.saved_figure(path, 10.0, 5.2) as figure:
        axis = figure.subplots()
        figure.suptitle(style.readable(title, 100), x=0.01, ha="left", fontsize=12)
        means = [100 * variant.frr.value for _, variant in sized]
        axis.plot([size for size, _ in sized], means, "-", color=style.GUIDE, linewidth=1.0)
        for index, (size, variant) in enumerate(sized):
            _sized_point(axis, size, variant, is_above=index % 2 == 0)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 4.0, 6.0)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}K"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("trainable parameters")
        axis.set_ylabel(f"FRR % at {budget} of its own curve; bar: 95 % interval")
        axis.margins(x=0.08, y=0.15)
        axis.set_ylim(bottom=0)


def _sized_point(axis: Axes, size: int, variant: VariantFigures, is_above: bool) -> None:
    """Draw one variant: its runs, mean, interval, and its name at one end of the interval."""
    found, colour = variant.frr, style.PALETTE[0]
    runs = [100 * rate for rate in variant.frr_of_runs]
    axis.plot([size] * len(runs), runs, "o", color=colour, alpha=0.35, markersize=4.5)
    low, high = 100 * (found.value - found.low), 100 * (found.high - found.value)
    axis.errorbar(
        [size], [100 * found.value], yerr=[[max(0.0, low)], [max(0.0, high)]], fmt="D",
        color=colour, markersize=6, elinewidth=1.6, capsize=0,
    )  # fmt: skip
    end = found.high if is_above else found.low
    axis.annotate(
        style.readable(variant.name), (size, 100 * end),
        xytext=(0, 6 if is_above else -14), textcoords="offset points", ha="center", fontsize=8.5,
        color=style.NOTE,
    )  # fmt: skip


def plot_sweep(
    points: Sequence[tuple[float, VariantFigures]],
    references: Sequence[VariantFigures],
    path: str | os.PathLike[str],
    *,
    title: str,
    key: str,
    budget: str,
) -> None:
    """Draw FRR and cv loss against the values of one setting and mark where each is lowest.

    points: value of the setting, and the variant with it.
    references: variants without the setting, such as the teacher: horizontal lines.
    key: name of the setting.
    """
    ordered = sorted(points, key=lambda point: point[0])
    values = [value for value, _ in ordered]
    with style.saved_figure(path, 11.0, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        figure.suptitle(style.readable(title, 100), x=0.01, ha="left", fontsize=12)
        rates = [[100 * rate for rate in variant.frr_of_runs] for _, variant in ordered]
        low = [100 * variant.frr.low for _, variant in ordered]
        high = [100 * variant.frr.high for _, variant in ordered]
        left.fill_between(values, low, high, color=style.PALETTE[0], alpha=0.15, linewidth=0)
        _line(left, values, rates, "{:.2f} %".format)
        _line(right, values, [variant.losses for _, variant in ordered], "{:.2f}".format)
        for index, variant in enumerate(references):
            dashes = (":", "--", "-.")[index % 3]
            levels = [(left, 100 * variant.frr.value)]
            if variant.losses:
                levels.append((right, sum(variant.losses) / len(variant.losses)))
            for axis, level in levels:
                axis.axhline(level, label=variant.name, linestyle=dashes, color=style.GUIDE)
        if references:
            style.legend_below(figure, left.get_legend_handles_labels()[0], 11.0)
        left.set_ylabel(f"FRR % at {budget} of its own curve")
        right.set_ylabel("cv loss at the end (CTC, nats per utterance)")
        for axis in (left, right):
            axis.set_xlabel(key)


def _line(
    axis: Axes,
    values: Sequence[float],
    runs: Sequence[Sequence[float]],
    as_text: Callable[[float], str],
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
        f"lowest: {as_text(means[best])} at {values[best]:g}", (values[best], means[best]),
        xytext=(0, -18), textcoords="offset points", color=style.PALETTE[1], ha=side,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
    )  # fmt: skip
    axis.margins(x=0.14, y=0.25)
