"""Figure of DET curves: FRR against false alarms per hour, one panel per keyword."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from wekws.plot import style
from wekws.score.intervals import wilson
from wekws.score.results import Result, all_keywords
from wekws.score.threshold_names import by_marker, threshold_name

logger = logging.getLogger(__name__)

_MARKERS = ("o", "s", "D", "^", "v")
_TICKS = np.array([m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)])
# Above this the panel switches to a square-root scale, on which 1 % and 60 % are both legible.
_LINEAR_UP_TO_PERCENT = 20.0


def plot_det(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Draw the DET curves of several models into one figure.

    Bands are 95 % Wilson intervals of the FRR. They need the number of positives from
    ``summary.json``, as do the operating points.
    """
    keywords = all_keywords(results)
    num_rows, num_columns = style.panel_grid(len(keywords))
    width = max(6.4, 4.6 * num_columns)
    groups = by_marker(results, _budgets(results))
    with style.saved_figure(path, width, 4.1 * num_rows + 0.6) as figure:
        axes = figure.subplots(num_rows, num_columns, squeeze=False).flat
        x_range = _XRange(results)
        frr_range = _frr_range(results, x_range)
        for axis, keyword in zip(axes, keywords, strict=False):
            _draw_panel(axis, keyword, results, x_range, frr_range, groups)
        for axis in list(axes)[len(keywords) :]:
            axis.set_axis_off()
        style.legend_below(figure, _legend(results, groups), width)


class _XRange:
    """The axis of false alarms: logarithmic, with a strip at the left for 0."""

    def __init__(self, results: Sequence[Result]) -> None:
        rates = np.concatenate([s.fa_per_hour for r in results for s in r.stats.values()])
        smallest = float(rates[rates > 0].min(initial=0.5))
        self.first = smallest
        self.zero = smallest / 2.5
        self.left = self.zero / 1.4
        reached = [p["false_alarms"]["per_hour"] for p in _all_points(results)]
        self.right = max(10.0, 5 * smallest, 1.5 * max(reached, default=0.0))

    def place(self, fa_per_hour: Any) -> Any:
        """Return the positions of rates on the axis; 0 lies in the strip."""
        return np.where(np.asarray(fa_per_hour) > 0, fa_per_hour, self.zero)

    def ticks(self) -> list[float]:
        """Return tick positions, thinned out when the axis spans many decades."""
        inside = _TICKS[(_TICKS >= self.first * 0.999) & (_TICKS <= self.right * 1.001)]
        if self.right / self.first > 120:
            inside = inside[np.isclose(np.log10(inside) % 1, 0) | np.isclose(inside, 0.5)]
        return [self.zero, *inside]


def _all_points(results: Sequence[Result]) -> list[dict[str, Any]]:
    entries = [result.entry(keyword) for result in results for keyword in result.keywords]
    points = [point for entry in entries for point in entry.get("operating_points") or []]
    return [p for p in points if p.get("threshold") is not None and p.get("misses")]


def _budgets(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(point["budget"] for point in _all_points(results)))


def _curve(result: Result, keyword: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return rates of false alarms, FRR in percent and, if positives are known, its band (2, M)."""
    rates, frr = result.stats[keyword].det_curve()
    positives = result.entry(keyword).get("positives")
    if not positives:
        return rates, 100 * frr, None
    low, high = wilson(np.rint(frr * positives), positives)
    return rates, 100 * frr, 100 * np.stack([np.asarray(low), np.asarray(high)])


def _frr_range(results: Sequence[Result], x_range: _XRange) -> tuple[float, float]:
    """Return the lowest and highest visible FRR of all curves, in percent, bands included."""
    lowest, highest = 100.0, 2.0
    for result in results:
        for keyword in result.keywords:
            if _nothing_to_draw(result, keyword):
                continue
            rates, frr, band = _curve(result, keyword)
            is_visible = rates <= x_range.right
            shown = (frr if band is None else band[1])[is_visible]
            lowest = min(lowest, float(frr[is_visible].min(initial=100.0)))
            highest = max(highest, float(shown.max(initial=0.0)))
    return lowest, min(highest * 1.08, 106.0)


def _nothing_to_draw(result: Result, keyword: str) -> str | None:
    entry = result.entry(keyword)
    if entry.get("positives") == 0:
        return "no utterance with this keyword"
    if entry.get("negative_hours") == 0:
        return "no negatives, so no false alarms"
    return None


def _draw_panel(
    axis: Axes,
    keyword: str,
    results: Sequence[Result],
    x_range: _XRange,
    frr_range: tuple[float, float],
    groups: Sequence[Sequence[str]],
) -> None:
    axis.set_title(style.readable(keyword, 34), pad=16)
    present = [(i, result) for i, result in enumerate(results) if keyword in result.stats]
    reasons = [_nothing_to_draw(result, keyword) for _, result in present]
    if all(reasons):
        style.empty_panel(axis, reasons[0] or "")
        return
    _format_axes(axis, x_range, frr_range)
    _draw_budget_lines(axis, [budget for group in groups for budget in group], x_range)
    for (index, result), reason in zip(present, reasons, strict=True):
        if reason is None:
            _draw_curve(axis, result, keyword, x_range, index)
            _draw_points(axis, result, keyword, x_range, groups, index)
    for result in results:
        if keyword not in result.stats:
            logger.warning(
                "%s has no scores for %s and is not drawn in that panel", result.name, keyword
            )


def _draw_curve(axis: Axes, result: Result, keyword: str, x_range: _XRange, index: int) -> None:
    colour = style.PALETTE[index % len(style.PALETTE)]
    # Earlier curves are wider, so that one below an identical later one stays visible.
    width = max(3.2 - 0.7 * index, 1.6)
    rates, frr, band = _curve(result, keyword)
    places = np.append(x_range.place(rates), 10 * max(rates[-1], x_range.right))
    axis.step(places, np.append(frr, frr[-1]), where="post", color=colour, linewidth=width)
    if band is not None:
        low, high = np.hstack([band, band[:, -1:]])
        axis.fill_between(places, low, high, step="post", color=colour, alpha=0.15, linewidth=0)


def _draw_points(
    axis: Axes,
    result: Result,
    keyword: str,
    x_range: _XRange,
    groups: Sequence[Sequence[str]],
    index: int,
) -> None:
    for place, group in enumerate(groups):
        point = result.operating_point(keyword, group[0])
        if not point or not point.get("misses"):
            continue
        x = x_range.place(point["false_alarms"]["per_hour"])
        axis.plot(
            x,
            100 * point["misses"]["rate"],
            marker=_MARKERS[place % len(_MARKERS)],
            # Each is so much smaller than the one before that both show in the same place.
            markersize=max(12.5 - 4.5 * place, 4) + (1.5 if index == 0 else 0),
            markerfacecolor=style.PALETTE[index % len(style.PALETTE)],
            markeredgecolor="white",
            markeredgewidth=1.2,
            zorder=5,
        )


def _draw_budget_lines(axis: Axes, budgets: list[str], x_range: _XRange) -> None:
    named = sorted(float(b.removesuffix("/h")) for b in budgets if b.endswith("/h")) or [0.5, 1.0]
    for i, rate in enumerate(named):
        if not x_range.first <= rate <= x_range.right:
            continue
        axis.axvline(rate, color=style.GUIDE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axis.annotate(
            f"{rate:g}/h",
            (rate, 1.01),
            xycoords=axis.get_xaxis_transform(),
            ha="right" if i + 1 < len(named) else "left",
            va="bottom",
            fontsize=8,
            color=style.GUIDE,
        )


def _format_axes(axis: Axes, x_range: _XRange, frr_range: tuple[float, float]) -> None:
    lowest, top = frr_range
    axis.set_xscale("log")
    axis.set_xlim(x_range.left, x_range.right)
    axis.axvspan(x_range.left, (x_range.zero * x_range.first) ** 0.5, color="#f1f1f1", zorder=0)
    axis.xaxis.set_major_locator(FixedLocator(x_range.ticks()))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: "0" if x <= x_range.zero * 1.01 else f"{x:g}")
    )
    axis.set_xlabel("False alarms per hour")
    if top <= _LINEAR_UP_TO_PERCENT or lowest > top / 6:
        axis.set_ylim(-0.025 * top, top)
        axis.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axis.set_ylabel("FRR (%)")
        return
    axis.set_yscale("function", functions=(_signed_root, _signed_square))
    axis.yaxis.set_major_locator(FixedLocator([0, 1, 2, 5, 10, 20, 30, 40, 60, 80, 100]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.set_ylim(-0.0004 * top, top)
    axis.set_ylabel("FRR (%), square-root scale")


def _signed_root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def _legend(results: Sequence[Result], groups: Sequence[Sequence[str]]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=style.PALETTE[i % len(style.PALETTE)], linewidth=2.4, label=label)
        for i, label in enumerate(style.readable(result.name, 40) for result in results)
    ]
    handles += [
        Line2D(
            [], [], color=style.GUIDE, linestyle="", marker=_MARKERS[i % len(_MARKERS)],
            markersize=7, label=threshold_name(results, group).replace(", ", ",\n"),
        )
        for i, group in enumerate(groups)
    ]  # fmt: skip
    if any(result.entry(k).get("positives") for result in results for k in result.keywords):
        handles.append(Patch(color=style.GUIDE, alpha=0.3, label="95 % interval of the FRR"))
    return handles
