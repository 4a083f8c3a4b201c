"""Thresholds that carry over from dev to other audio, and the budgets that dev can support.

A count on dev says little about the rate elsewhere: with the threshold at which dev has 3 false
alarms in 3 h, other audio of the same kind has more than 1 per hour in about half of all cases.
Rule ``upper`` therefore keeps the upper limit of the rate within the budget. Its promise is exact:
let t be the threshold with a true rate equal to the budget. A lower threshold is chosen only if
dev has so few events above t that their upper limit is within the budget, and that happens in at
most 5 % of all dev sets.

With several keywords and little audio, one threshold for all makes better use of dev: the false
alarms of all keywords are counted together, per hour and keyword, so that 3 h with six keywords
say as much as 18 h with one. `choose_thresholds` does so unless dev allows each keyword
`MIN_OWN_FALSE_ALARMS` of its own. The promise is then one of their mean rate, and exact where the
keywords err on different audio.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wekws.errors import ConfigError, DataError, did_you_mean
from wekws.score.det import Budget, next_above
from wekws.score.intervals import UPPER_CONFIDENCE, poisson_upper, weighted_poisson_upper
from wekws.score.sets import KeywordSet

ThresholdRule = Literal["upper", "count"]
"""Figure that must be within the budget: the upper limit of the rate, or the count itself."""

SharedThreshold = Literal["auto", "true", "false"]
"""Whether all keywords have one threshold; auto: where dev says too little about each."""

MIN_OWN_FALSE_ALARMS = 3
"""With `auto`, a keyword has its own threshold if the budget allows at least so many on dev."""


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    """Choice of thresholds on dev."""

    rule: ThresholdRule = "upper"
    """Figure that must be within the budget."""
    shared: SharedThreshold = "auto"
    """Whether all keywords have one threshold. Rule `count`, and a budget of one false alarm in
    all, are of each keyword with `auto`."""
    category_hours: Mapping[str, float] | None = None
    """Hours of use of each category of negatives; None: the hours of dev as they are."""


@dataclass(frozen=True, kw_only=True)
class PooledNegatives:
    """Events on negatives with the rate per hour of use that each stands for."""

    scores: np.ndarray
    """(M,) confidence of each event."""
    weights: np.ndarray
    """(M,) rate per hour of use of one event: 1 / hours where all categories count as they are."""
    largest_weight: float
    """Largest weight that an event can have."""

    def upper_limit(self, is_alarm: np.ndarray | None = None) -> float:
        """Return the upper limit of the rate per hour of some events (M,); None: of no event."""
        weights = self.weights[is_alarm] if is_alarm is not None else np.zeros(0)
        upper = weighted_poisson_upper(
            float(weights.sum()), float((weights**2).sum()), self.largest_weight
        )
        return float(upper)


@dataclass(frozen=True, kw_only=True)
class ChosenThreshold:
    """A threshold and how it was chosen. Counts are of all keywords that share it."""

    threshold: float
    """A detection is a confidence >= threshold."""
    rule: ThresholdRule
    """Rule that chose it."""
    allowed: int
    """Number of highest events that the budget allows."""
    false_alarms: int
    """Events at or above the threshold."""
    upper_per_hour: float
    """Upper limit (95 %) of their rate per hour of use and keyword."""
    num_keywords: int = 1
    """Number of keywords that share it."""


def keeps_budget(budget: Budget, rule: ThresholdRule, upper_per_hour: float) -> bool:
    """Return whether a threshold that was chosen by a rule keeps its budget on dev by that rule.

    By the count every threshold does, and so does one of one false alarm in all.
    """
    if rule == "count" or budget.per_hour is None:
        return True
    return upper_per_hour <= budget.per_hour * (1 + 1e-9)


def as_they_are(scores: np.ndarray, hours: float) -> PooledNegatives:
    """Return events (M,) on some hours of negatives, each of which counts as one.

    Raises: DataError if there are no hours.
    """
    if hours <= 0:
        raise DataError("no negatives: a threshold needs audio without any keyword")
    weights = np.full(len(scores), 1 / hours)
    return PooledNegatives(scores=scores, weights=weights, largest_weight=1 / hours)


def pooled_negatives(
    keyword: KeywordSet, category_hours: Mapping[str, float] | None = None
) -> PooledNegatives:
    """Return the negatives of a keyword, weighted by the hours of use of each category.

    category_hours: hours of use, in any unit; a category that is not named has none. None: the
    hours of the set as they are.
    Raises: ConfigError if a category of use has no audio in the set; DataError if there are no
    negatives at all.
    """
    if category_hours is None:
        return as_they_are(keyword.negatives, keyword.negative_hours)
    found = {category.category: category for category in keyword.categories}
    require_categories(category_hours, found)
    total = sum(category_hours.values())
    weights = {name: hours / total / found[name].hours for name, hours in category_hours.items()}
    used = [category for category in keyword.categories if category.category in weights]
    return PooledNegatives(
        scores=np.concatenate([category.scores for category in used]),
        weights=np.concatenate(
            [np.full(len(category.scores), weights[category.category]) for category in used]
        ),
        largest_weight=max(weights.values()),
    )


def negatives_of_all(keywords: Sequence[PooledNegatives]) -> PooledNegatives:
    """Return the negatives of several keywords as one: the rate is the mean of theirs."""
    return PooledNegatives(
        scores=np.concatenate([negatives.scores for negatives in keywords]),
        weights=np.concatenate([negatives.weights for negatives in keywords]) / len(keywords),
        largest_weight=max(negatives.largest_weight for negatives in keywords) / len(keywords),
    )


def choose_thresholds(
    keywords: Sequence[PooledNegatives], budget: Budget, options: ThresholdOptions
) -> list[ChosenThreshold]:
    """Return the threshold of each keyword: its own, or one that all of them share."""
    shortest_h = min(1 / negatives.largest_weight for negatives in keywords)
    can_share = options.rule == "upper" or options.shared == "true"
    if not can_share or not _is_shared(options.shared, budget, shortest_h, len(keywords)):
        return [choose_threshold(negatives, budget, options.rule) for negatives in keywords]
    chosen = choose_threshold(negatives_of_all(keywords), budget, options.rule)
    return [replace(chosen, num_keywords=len(keywords))] * len(keywords)


def _is_shared(shared: SharedThreshold, budget: Budget, hours: float, num_keywords: int) -> bool:
    """Return whether keywords with some hours of negatives each share a threshold."""
    if num_keywords < 2 or shared == "false":
        return False
    if shared == "true":
        return True
    if budget.per_hour is None:
        return False
    most = most_false_alarms(budget.per_hour, hours)
    return most is None or most < MIN_OWN_FALSE_ALARMS


def choose_threshold(
    negatives: PooledNegatives, budget: Budget, rule: ThresholdRule = "upper"
) -> ChosenThreshold:
    """Return the lowest threshold that keeps the budget by the rule.

    ``upper``: the upper limit of the rate is within the budget. If not even no false alarm is
    enough, the threshold is the strictest that the set supports, just above its highest event; its
    ``upper_per_hour`` is then above the budget. ``count``: the rate itself is within the
    budget. A budget of one false alarm in all is a count under any rule.
    The threshold lies one last digit (of 6) above the highest event that must not be detected, so
    that it rejects no positive without need; 0 if all events are within the budget.
    """
    order = np.argsort(-negatives.scores, kind="stable")
    scores, weights = negatives.scores[order], negatives.weights[order]
    if budget.per_hour is None:
        rule, allowed = "count", 1
    else:
        allowed = _allowed(weights, negatives.largest_weight, budget.per_hour, rule)
    threshold = 0.0 if len(scores) <= allowed else next_above(float(scores[allowed]))
    is_alarm = negatives.scores >= threshold
    return ChosenThreshold(
        threshold=threshold,
        rule=rule,
        allowed=allowed,
        false_alarms=int(is_alarm.sum()),
        upper_per_hour=negatives.upper_limit(is_alarm),
    )


def _allowed(
    weights: np.ndarray, largest_weight: float, per_hour: float, rule: ThresholdRule
) -> int:
    """Return how many of the highest events the budget allows; weights: (M,) in that order."""
    most = per_hour * (1 + 1e-9)  # sums of weights are inexact
    rates = np.concatenate([[0.0], np.cumsum(weights)])
    variances = np.concatenate([[0.0], np.cumsum(weights**2)])
    # The upper limit is above the rate, so no more events can be allowed than by the count.
    by_count = int(np.searchsorted(rates, most, side="right"))
    if rule == "count":
        return by_count - 1
    limits = weighted_poisson_upper(rates[:by_count], variances[:by_count], largest_weight)
    is_over = np.asarray(limits) > most
    return max(int(is_over.argmax()) - 1 if is_over.any() else by_count - 1, 0)


def hours_needed(per_hour: float, false_alarms: int = 0) -> float:
    """Return the hours of negatives from which so many false alarms support a budget.

    From this length on, the upper limit of the rate is at most ``per_hour``: 3.0 h for 1/h without
    a false alarm, 4.7 h with one. Without end for a budget of 0.
    """
    return float(poisson_upper(false_alarms, 1.0)) / per_hour if per_hour > 0 else math.inf


def most_false_alarms(per_hour: float, hours: float) -> int | None:
    """Return the most false alarms in `hours` that support a budget; None: not even none."""
    if hours <= 0 or hours < hours_needed(per_hour) * (1 - 1e-9):
        return None
    # The upper limit is above the count, so the count is below per_hour * hours.
    counts = np.arange(math.floor(per_hour * hours) + 1)
    limits = np.asarray(poisson_upper(counts, hours))
    return int(np.flatnonzero(limits <= per_hour * (1 + 1e-9))[-1])


def support_text(
    hours: float, budget: Budget, num_keywords: int = 1, shared: SharedThreshold = "auto"
) -> tuple[bool, str]:
    """Return whether so many hours of negatives in dev support a budget, and the reason.

    num_keywords, shared: keywords, and whether they share a threshold, see `ThresholdOptions`.
    """
    if budget.per_hour is None:
        return True, f"{budget.label}: a count in the set, without a promise for other audio"
    there = f"dev has {hours:.2f} h of negatives"
    threshold, each, num_sharing = "the threshold", "", 1
    if _is_shared(shared, budget, hours, num_keywords):
        num_sharing = num_keywords
        threshold, each = f"one threshold for all {num_keywords} keywords", " per keyword"
    most = most_false_alarms(budget.per_hour, hours * num_sharing)
    needed = hours_needed(budget.per_hour) / num_sharing
    if most is not None:
        alarms = f"{most} false alarm{'s' * (most != 1)}"
        return True, (
            f"{budget.label}: {there}; {threshold} may give {alarms} there, then the rate{each} is "
            f"at most {budget.label} ({UPPER_CONFIDENCE:.0%} sure)"
        )
    if math.isinf(needed):
        return False, f"{budget.label}: no amount of negatives supports a rate of 0"
    with_one = hours_needed(budget.per_hour, 1) / num_sharing
    return False, (
        f"{budget.label}: {there}, so no threshold for this budget can be chosen; at least "
        f"{needed:.1f} h are needed ({with_one:.1f} h to allow one false alarm there); give "
        "--negatives"
    )


def require_categories(
    category_hours: Mapping[str, float], known: Collection[str], where: object = "dev"
) -> None:
    """Raise ConfigError for a category of use of which a set has no negatives.

    known: categories of its negatives. where: its name or list, for messages.
    """
    for name in category_hours:
        if name not in known:
            there = ", ".join(sorted(known)) or "none; utt2category gives them"
            raise ConfigError(
                f"--category_hours {name}: no negatives of this category in {where}; there "
                f"are {there}"
                f"{did_you_mean(name, known)}"
            )


def category_hours_from_text(text: str) -> dict[str, float] | None:
    """Return the hours of use of a text such as ``speech=2,music=1``; None for an empty one.

    Raises: ConfigError for anything but distinct names with numbers above 0.
    """
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    names = [name.strip() for name, _, _ in parts]
    try:
        hours = [float(value) for _, _, value in parts]
    except ValueError:
        hours = []
    is_valid = all(names) and len(set(names)) == len(hours) == len(parts)
    if not is_valid or not all(0 < value < math.inf for value in hours):
        raise ConfigError(
            f"--category_hours: found {text!r}; expected for example speech=2,music=1"
        )
    return dict(zip(names, hours, strict=True)) or None
