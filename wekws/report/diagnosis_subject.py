"""A run under diagnosis, and the slope of what it measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from wekws.report.model_folder import Model
from wekws.runlog.fields import BEFORE_FIRST_STEP
from wekws.runlog.metrics_reader import series

# Epochs that a slope is fitted to, and the share of the loss an epoch that counts as moving: runs
# of the examples that had come to their end moved by 0.2 to 0.9 %, noise of the dev set included.
TAIL, MOVING = 5, 0.01


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run under diagnosis: its folder, and all rows of its ``metrics.jsonl``."""

    model: Model
    rows: Sequence[dict[str, Any]]

    @property
    def name(self) -> str:
        """The name it goes by."""
        return self.model.name

    @property
    def losses(self) -> dict[int, float]:
        """Cv loss by epoch; -1 is the state before the first step."""
        return dict(zip(*series(list(self.model.cv_rows), "cv_loss"), strict=True))

    @property
    def trained(self) -> list[float]:
        """Cv loss after each epoch."""
        return [loss for epoch, loss in self.losses.items() if epoch > BEFORE_FIRST_STEP]

    def newest(self, kind: str) -> dict[str, Any]:
        """Return the last row of a kind, empty if there is none."""
        return next((row for row in reversed(self.rows) if row.get("kind") == kind), {})

    @property
    def teacher_checkpoint(self) -> Path | None:
        """The teacher that it was trained with, the first of several."""
        return next((Path(found) for found in self.model.run.get("teachers") or []), None)


def slope(values: Sequence[float]) -> float:
    """Return the least-squares slope of values that follow one another, per step."""
    middle = (len(values) - 1) / 2
    spread = sum((i - middle) ** 2 for i in range(len(values)))
    return sum((i - middle) * value for i, value in enumerate(values)) / spread


def tail_slope(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the slope over the last epochs, and as a share of their mean; None if too few."""
    tail = values[-TAIL:]
    if len(tail) < 3:
        return None
    found = slope(tail)
    return found, found / fmean(tail)


def epochs_to(losses: Sequence[float], goal: float) -> int | None:
    """Return after how many epochs a loss first was at the goal or below; None: never."""
    return next((i + 1 for i, loss in enumerate(losses) if loss <= goal), None)


def are_comparable(first: Subject, second: Subject) -> bool:
    """Whether two runs were measured on the same dev list, as far as their files say."""
    lists = [subject.model.run.get("cv_data") for subject in (first, second)]
    return None in lists or lists[0] == lists[1]
