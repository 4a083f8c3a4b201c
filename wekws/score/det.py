"""DET points from sorted scores, and budgets of false alarms.

A detection is a confidence >= threshold. False rejections count utterances of the keyword by
their highest confidence; false alarms count events on audio without any keyword.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path


@dataclass(frozen=True)
class DetPoints:
    """Exact counts of both errors at N thresholds."""

    thresholds: np.ndarray
    """(N,) ascending, from 0 to one above every score."""
    false_alarms: np.ndarray
    """(N,) events on negatives at or above each threshold."""
    misses: np.ndarray
    """(N,) positives below each threshold."""
    positives: int
    """Number of positives."""
    hours: float
    """Hours of negatives."""

    @property
    def fa_per_hour(self) -> np.ndarray:
        """False alarms per hour (N,), not increasing."""
        return self.false_alarms / self.hours

    @property
    def frr(self) -> np.ndarray:
        """Share of positives that are missed (N,), not decreasing."""
        return self.misses / self.positives


def det_points(
    positive_scores: np.ndarray,
    negative_scores: np.ndarray,
    hours: float,
    extra_thresholds: Iterable[float] = (),
) -> DetPoints:
    """Count both errors at 0, at every score, at the extra thresholds, and above all.

    positive_scores: (P,) highest confidence of each positive, below 0 if it was rejected.
    negative_scores: (M,) confidence of every event in `hours` of negatives.
    Raises: DataError if there are no positives or no hours.
    """
    if len(positive_scores) == 0:
        raise DataError("no positives: FRR needs utterances of the keyword")
    if hours <= 0:
        raise DataError("no negatives: a rate of false alarms needs audio without any keyword")
    positives, negatives = np.sort(positive_scores), np.sort(negative_scores)
    scores = np.concatenate([positives[positives >= 0], negatives])
    above_all = 1.0 if scores.max(initial=0.0) < 1.0 else 1.000001
    extra = [0.0, above_all, *extra_thresholds]
    thresholds = np.unique(np.concatenate([scores, extra]))
    return DetPoints(
        thresholds=thresholds,
        false_alarms=len(negatives) - np.searchsorted(negatives, thresholds, side="left"),
        misses=np.searchsorted(positives, thresholds, side="left"),
        positives=len(positives),
        hours=hours,
    )


def write_stats(path: str | os.PathLike[str], points: DetPoints) -> None:
    """Write `stats.<keyword>.txt`: threshold, false alarms per hour, FRR on each line."""
    columns = (points.thresholds, points.fa_per_hour, points.frr)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.writelines(map("%.7g %.6f %.6f\n".__mod__, rows))


@dataclass(frozen=True)
class Budget:
    """Number of false alarms that is acceptable."""

    per_hour: float | None
    """False alarms per hour, >= 0; None: one in the whole set."""

    def __post_init__(self) -> None:
        """Refuse a rate below 0 or without end."""
        if self.per_hour is not None and not 0 <= self.per_hour < math.inf:
            raise ConfigError(
                f"budgets: found {self.per_hour} false alarms per hour; expected >= 0"
            )

    @property
    def label(self) -> str:
        """Name of the budget in summaries."""
        return "1 in all" if self.per_hour is None else f"{self.per_hour:g}/h"

    def allowed(self, hours: float) -> int:
        """Return the number of false alarms that stay within the budget in `hours`."""
        if self.per_hour is None:
            return 1
        return math.floor(self.per_hour * hours * (1 + 1e-12))


def budgets_from_text(text: str, flag: str = "--budgets") -> list[Budget]:
    """Return the budgets of a text such as `0.5,1`: false alarms per hour.

    flag: where the text comes from, for messages.
    Raises: ConfigError for anything but distinct numbers >= 0.
    """
    expected = f"{flag}: found {text!r}; expected distinct numbers >= 0, such as 0.5,1"
    try:
        budgets = [Budget(float(part)) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(expected) from None
    if not budgets or len(set(budgets)) < len(budgets):
        raise ConfigError(expected)
    return budgets


def budget_from_label(label: str) -> Budget:
    """Return the budget of a label such as ``0.5/h`` or ``1 in all``."""
    return Budget(float(label.removesuffix("/h"))) if label.endswith("/h") else Budget(None)


def next_above(score: float) -> float:
    """Return the next number of 6 significant digits, 1e-12 at least."""
    if score < 1e-12:
        return 1e-12
    digit = 10.0 ** (math.floor(math.log10(score)) - 5)
    candidates = (float(f"{score + step * digit:.6g}") for step in (0.0, 0.5, 1.0, 1.5))
    return next(candidate for candidate in candidates if candidate > score)
