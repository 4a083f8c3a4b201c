"""Figure of confidences: distributions on positives and negatives, models overlaid."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from wekws.plot import style
from wekws.score.results import Result, Stats, all_keywords, headline_budget
from wekws.score.threshold_names import threshold_name

_MIN_BINS, _MAX_BINS = 16, 50
_DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


def plot_confidence(
    results: Sequence[Result],
    path: str | os.PathLike[str],
    *,
    budgets: Sequence[str] | None = None,
) -> None:
    """Draw, for each keyword, positives upwards and negatives downwards on logarithmic axes.

    Both are read from the error rates at every threshold: a step of the FRR is a positive, a step
    of the false alarms is an event on the negatives.
    budgets: their thresholds are drawn as vertical lines; None: the headline budget.
    """
    budgets = [headline_budget(results)] if budgets is None else budgets
    keywords = all_keywords(results)
    num_rows, num_columns = style.panel_grid(len(keywords))
    width = max(6.4, 4.6 * num_columns)
    right = _right_limit(results)
    height = 4.5 * num_rows + 0.6
    with style.saved_figure(path, width, height, h_pad=0.05, hspace=0.0) as figure:
        axes = figure.subplots(2 * num_rows, num_columns, squeeze=False)
        for index in range(num_rows * num_columns):
            row, column = divmod(index, num_columns)
            pair = axes[2 * row, column], axes[2 * row + 1, column]
            if index >= len(keywords):
                pair[0].set_axis_off()
                pair[1].set_axis_off()
                continue
            _draw_pair(pair, keywords[index], results, right, budgets)
        style.legend_below(figure, _legend(results, budgets), width)


def _right_limit(results: Sequence[Result]) -> float:
    """Return the end of the confidence axis: 1, or less if all confidences are small."""
    highest = 0.0
    for result in results:
        for stats in result.stats.values():
            held = (stats.positive_shares() > 0) | (stats.negative_rates() > 0)
            highest = max(highest, float(stats.thresholds[held].max(initial=0.0)))
    return 1.0 if highest > 0.5 or highest <= 0 else 1.1 * highest


def _draw_pair(
    pair: tuple[Axes, Axes],
    keyword: str,
    results: Sequence[Result],
    right: float,
    budgets: Sequence[str],
) -> None:
    above, below = pair
    above.set_title(style.readable(keyword, 34))
    edges = _edges(results, keyword, right)
    for axis, unit in ((above, "positives"), (below, "negatives")):
        lowest, fill = 100.0, len(results) <= 2
        for i, result in enumerate(results):
            if keyword in result.stats:
                lowest = min(lowest, _draw_histogram(axis, result, keyword, unit, edges, i, fill))
        if not axis.has_data():
            style.empty_panel(axis, f"no {unit} in this set")
            continue
        for i, result in enumerate(results):
            _draw_thresholds(axis, result, keyword, budgets, i)
        _format_axis(axis, unit, lowest, right)
    above.tick_params(labelbottom=False)
    if below.has_data():
        below.invert_yaxis()
    below.set_xlabel("Confidence")


def _edges(results: Sequence[Result], keyword: str, right: float) -> np.ndarray:
    """Return bin edges: fewer bins for few positives, so that the histogram has no gaps."""
    counts = [result.entry(keyword).get("positives") or 600 for result in results]
    num_bins = int(np.clip(2 * np.sqrt(min(counts)), _MIN_BINS, _MAX_BINS))
    return np.linspace(0, right, num_bins + 1)


def _shares(result: Result, keyword: str, unit: str) -> tuple[np.ndarray, float]:
    """Return the percentage at each threshold, and the percentage of a single utterance."""
    stats: Stats = result.stats[keyword]
    entry = result.entry(keyword)
    if unit == "positives":
        values = 100 * stats.positive_shares()
        count = entry.get("positives")
        return (values if count != 0 else 0 * values), 100 / max(count or 1000, 1)
    rates = stats.negative_rates()
    hours = entry.get("negative_hours")
    count = rates.sum() * (1 if hours is None else hours)
    return 100 * rates / max(rates.sum(), 1e-12), 100 / max(count if hours else 1000, 1)


def _draw_histogram(
    axis: Axes, result: Result, keyword: str, unit: str, edges: np.ndarray, index: int, fill: bool
) -> float:
    """Draw one model's histogram; return the height of a single utterance in percent."""
    values, single = _shares(result, keyword, unit)
    if values.sum() <= 0:
        return single
    places = np.clip(result.stats[keyword].thresholds, 0, edges[-1] * (1 - 1e-9))
    heights, _ = np.histogram(places, bins=edges, weights=values)
    heights[heights < single / 2] = np.nan
    colour = style.PALETTE[index % len(style.PALETTE)]
    floor = single / 3
    if fill:
        axis.stairs(heights, edges, baseline=floor, fill=True, color=colour, alpha=0.16)
    axis.stairs(
        np.nan_to_num(heights, nan=floor), edges, baseline=None, color=colour, linewidth=1.5
    )
    return single


def _draw_thresholds(
    axis: Axes, result: Result, keyword: str, budgets: Sequence[str], index: int
) -> None:
    for budget, dash in zip(budgets, _DASHES, strict=False):
        point = result.operating_point(keyword, budget)
        if point and point.get("threshold") is not None:
            colour = style.PALETTE[index % len(style.PALETTE)]
            axis.axvline(point["threshold"], color=colour, linewidth=1.5, linestyle=dash)


def _format_axis(axis: Axes, unit: str, lowest: float, right: float) -> None:
    axis.set_yscale("log")
    axis.set_ylim(lowest / 2, 100)
    axis.set_xlim(0, right)
    axis.yaxis.set_major_locator(LogLocator(base=10, numticks=6))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.set_ylabel(f"% of {unit}")


def _legend(results: Sequence[Result], budgets: Sequence[str]) -> list[Artist]:
    handles: list[Artist] = [
        Patch(facecolor=style.PALETTE[i % len(style.PALETTE)], alpha=0.8, label=label)
        for i, label in enumerate(style.readable(result.name, 40) for result in results)
    ]
    for budget, dash in zip(budgets, _DASHES, strict=False):
        if any(r.operating_point(k, budget) for r in results for k in r.keywords):
            label = threshold_name(results, [budget])
            handles.append(Line2D([], [], color=style.GUIDE, linestyle=dash, label=label))
    return handles
