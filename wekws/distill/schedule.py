"""Numbers that change over training: weights and temperatures."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wekws.errors import ConfigError

Shape = Literal[
    "constant", "linear", "cosine_descent", "cosine_growth", "cosine_vshape", "cosine_^shape"
]
# Ends of a shape that is given by its name alone: the range of a weight.
_USUAL_RANGE: dict[str, tuple[float, float]] = {
    "cosine_descent": (1.0, 0.0),
    "cosine_growth": (0.0, 1.0),
    "cosine_vshape": (1.0, 0.0),
    "cosine_^shape": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A value for every progress from 0 (before the first step) to 1 (after the last)."""

    shape: Shape
    """``constant``; ``linear``; half a cosine from start down to end (``cosine_descent``) or up to
    it (``cosine_growth``); a whole cosine that begins at its highest value (``cosine_vshape``) or
    at its lowest (``cosine_^shape``), reaches the other end halfway and comes back."""
    start: float | None = None
    """Value at progress 0; all that ``constant`` needs."""
    end: float | None = None
    """Value at progress 1, for the last two shapes at 0.5. The cosine shapes run between 0 and 1
    unless start and end say otherwise."""
    knots: tuple[tuple[float, float], ...] = ()
    """(progress, value) pairs instead of start and end, from progress 0 on: joined by lines
    (``linear``) or each held until the next (``constant``: stages)."""

    def __post_init__(self) -> None:
        """Refuse a schedule without a value, and a shape whose ends go the other way."""
        if self.knots:
            self._check_knots()
        elif self.shape == "constant":
            if self.start is None or self.end is not None:
                raise ConfigError("constant: expected start alone, or knots")
        elif self.shape == "linear":
            if self.start is None or self.end is None:
                raise ConfigError(
                    "linear: expected start and end, or knots, such as "
                    "{shape: linear, start: 1.0, end: 0.3}"
                )
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
        """(start, end); the usual ones where none were given."""
        usual = _USUAL_RANGE.get(self.shape)
        if usual is None:  # constant and linear, which always have a start
            assert self.start is not None, "knots have no ends"
            usual = self.start, self.start
        return (
            usual[0] if self.start is None else self.start,
            usual[1] if self.end is None else self.end,
        )

    @property
    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value."""
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
"""A number, the name of a shape, or a whole schedule, as a configuration gives it."""


def as_schedule(value: Scheduled) -> Schedule:
    """Return the schedule for a configuration's number, name or section.

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
        if isinstance(value, str):
            span = f"{value}, that is {span}"
        limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ConfigError(f"{name}: found {span}; expected {limits}")
    return schedule


def share_out(shares: Sequence[int], total: int) -> list[int]:
    """Return whole numbers in proportion to ``shares`` that add up to ``total``, none below 1.

    By largest remainder; of equal ones the earlier wins.
    Raises: ConfigError if there are more shares than there is to give.
    """
    if total < len(shares):
        raise ConfigError(
            f"{len(shares)} stages (or depths of a student that grows) in {total} epochs; expected "
            "at least one epoch each: raise training_config.max_epoch"
        )
    exact = [share * total / sum(shares) for share in shares]
    given = [max(1, int(value)) for value in exact]
    while sum(given) != total:
        step = 1 if sum(given) < total else -1
        open_ = [i for i in range(len(given)) if given[i] + step >= 1]
        place = max(open_, key=lambda i: step * (exact[i] - given[i]))
        given[place] += step
    return given
