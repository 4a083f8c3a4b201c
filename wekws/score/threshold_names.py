"""Names of the thresholds at a budget, for tables and figures."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from wekws.score.results import Result
from wekws.score.summary import is_unsupported


def threshold_name(results: Sequence[Result], budgets: Sequence[str]) -> str:
    """Return what the thresholds of some results at one or several budgets are.

    ``threshold for 1/h``, or ``strictest threshold of dev (1.85/h)`` where dev is too small for the
    budget; both where that holds for some of the results or keywords only.
    """
    points = [point for point in _points(results, budgets) if point]
    weak = [point for point in points if is_unsupported(point)]
    labels = " and ".join(budgets)
    if not weak:
        return f"threshold for {labels}"
    supported = f"{max(point['dev_upper_per_hour'] for point in weak):.2f}/h"
    chosen_on = {point.get("chosen_on", "dev") for point in weak}
    where = "dev" if chosen_on == {"dev"} else "the set itself"
    if len(weak) < len(points):
        return f"threshold for {labels}, or the strictest of {where} ({supported})"
    instead = f", in place of {labels}" if len(budgets) > 1 else ""
    return f"strictest threshold of {where} ({supported}){instead}"


def how_chosen(point: Mapping[str, Any]) -> str:
    """Return how a threshold was chosen: ``dev, strictest (1.85/h), one for all 2 keywords``."""
    parts = [str(point.get("chosen_on") or "-")]
    if is_unsupported(point):
        parts.append(f"strictest ({point['dev_upper_per_hour']:.2f}/h)")
    if (num_keywords := point.get("shared_by", 1)) > 1:
        parts.append(f"one for all {num_keywords} keywords")
    return ", ".join(parts)


def by_marker(results: Sequence[Result], budgets: Sequence[str]) -> list[list[str]]:
    """Return the budgets in groups: one each, or several with the same strictest thresholds."""
    groups: dict[Hashable, list[str]] = {}
    for budget in budgets:
        points = [point for point in _points(results, [budget]) if point]
        is_weak = all(is_unsupported(point) for point in points)
        key = tuple(point["threshold"] for point in points) if is_weak else budget
        groups.setdefault(key, []).append(budget)
    return list(groups.values())


def _points(results: Sequence[Result], budgets: Sequence[str]) -> list[dict[str, Any] | None]:
    return [
        result.operating_point(keyword, budget)
        for result in results
        for keyword in result.keywords
        for budget in budgets
    ]
