"""A number that changes over training: weights, temperature and stages are all one of these."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from wekws.errors import ConfigError

Shape = Literal[
    "constant", "linear", "cosine_descent", "cosine_growth", "cosine_vshape", "cosine_^shape"
]
# What a shape runs between when nothing is said: the range of a weight.
_USUAL_RANGE: dict[str, tuple[float, float]] = {
    "cosine_descent": (1.0, 0.0),
    "cosine_growth": (0.0, 1.0),
    "cosine_vshape": (1.0, 0.0),
    "cosine_^shape": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A value for every progress from 0 (before the first step) to 1 (after the last).

    shape: ``constant``; ``linear``; half a cosine from start down to end (``cosine_descent``) or
    up to it (``cosine_growth``); a whole one that starts at its highest (``cosine_vshape``) or
    at its lowest (``cosine_^shape``), reaches the other end halfway and comes back.
    start: value at progress 0; all that ``constant`` needs.
    end: value at progress 1, for the two last shapes at 0.5. The cosine shapes run between
    0 and 1 unless told otherwise.
    knots: (progress, value) pairs instead of start and end, from progress 0 on: joined by lines
    (``linear``) or each held until the next (``constant``: stages).
    """

    shape: Shape
    start: float | None = None
    end: float | None = None
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what has no value somewhere, and shapes that go the other way."""
        if self.knots:
            self._check_knots()
        elif self.shape == "constant":
            if self.start is None or self.end is not None:
                raise ConfigError("constant: expected start alone, or knots")
        elif self.shape == "linear":
            if self.start is None or self.end is None:
                raise ConfigError("linear: expected start and end, or knots")
        elif (self.ends[0] > self.ends[1]) != (_USUAL_RANGE[self.shape][0] == 1.0):
            way = "above" if _USUAL_RANGE[self.shape][0] == 1.0 else "below"
            raise ConfigError(
                f"{self.shape}: start {self.ends[0]:g} and end {self.ends[1]:g}; expected a start "
                f"{way} the end"
            )

    def _check_knots(self) -> None:
        places = [place for place, _ in self.knots]
        rises = all(a < b for a, b in itertools.pairwise(places))
        if places[0] != 0.0 or places[-1] > 1.0 or not rises:
            raise ConfigError(f"knots: at progress {places}; expected 0 first, rising to at most 1")
        if self.shape not in ("constant", "linear"):
            raise ConfigError(f"knots: no use for them in {self.shape}; take constant or linear")
        if self.start is not None or self.end is not None:
            raise ConfigError("knots: given beside start or end; expected one or the other")

    @property
    def ends(self) -> tuple[float, float]:
        """(start, end), the usual ones where none were given."""
        start, end = _USUAL_RANGE.get(self.shape, (self.start, self.start))
        return (
            start if self.start is None else self.start,
            end if self.end is None else self.end,
        )

    @property
    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value it ever has."""
        values = [value for _, value in self.knots] or self.ends
        return min(values), max(values)

    def at(self, progress: float) -> float:
        """Return the value at a progress; below 0 it is that at 0, above 1 that at 1."""
        progress = min(1.0, max(0.0, progress))
        if self.knots:
            return self._between_knots(progress)
        start, end = self.ends
        if self.shape in ("constant", "linear"):
            return start + (end - start) * progress
        waves = 0.5 if self.shape in ("cosine_descent", "cosine_growth") else 1.0
        return start + (end - start) * (0.5 - 0.5 * math.cos(2.0 * math.pi * waves * progress))

    def _between_knots(self, progress: float) -> float:
        below, above = self.knots[0], None
        for knot in self.knots[1:]:
            if knot[0] > progress:
                above = knot
                break
            below = knot
        if above is None or self.shape == "constant":
            return below[1]
        return below[1] + (above[1] - below[1]) * (progress - below[0]) / (above[0] - below[0])


Scheduled = float | Shape | Schedule
"""What a configuration may say: a number, the name of a shape, or all of it."""


def as_schedule(value: Scheduled) -> Schedule:
    """Return the schedule that a configuration's number, name or section stands for.

    Raises: ConfigError for the name of a shape that needs more than its name.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        return Schedule(shape=value)
    return Schedule(shape="constant", start=float(value))


def is_used(weight: Scheduled) -> bool:
    """Return whether a weight is ever above 0."""
    return as_schedule(weight).extremes[1] > 0.0


def checked_schedule(name: str, value: Scheduled, low: float, high: float = math.inf) -> Schedule:
    """Return the schedule if it stays within ``low`` to ``high``.

    Raises: ConfigError naming the setting.
    """
    schedule = as_schedule(value)
    lowest, highest = schedule.extremes
    if not (low <= lowest and highest <= high):
        span = f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}"
        limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ConfigError(f"{name}: found {span}; expected {limits}")
    return schedule
