"""A run under diagnosis, and the slopes of its cv loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from wekws.report.model_folder import TrainedModel
from wekws.runlog.fields import BEFORE_FIRST_STEP, Row
from wekws.runlog.metrics_reader import series

# Epochs that a slope is fitted to, and the share of the loss per epoch above which a run still
# moves: converged runs of the examples moved by 0.2 to 0.9 %, noise of the dev set included.
TAIL, MOVING = 5, 0.01
# The fit of a short schedule covers most of the decay of its learning rate, so the loss at its last
# epochs counts too; a schedule of fewer tails than this is short.
LAST_EPOCHS, SHORT_SCHEDULE = 3, 4


@dataclass(frozen=True, kw_only=True)
class DiagnosedRun:
    """A run under diagnosis."""

    model: TrainedModel
    """The run's folder."""
    rows: Sequence[Row]
    """All rows of its ``metrics.jsonl``."""

    @property
    def name(self) -> str:
        """Name in tables and legends."""
        return self.model.name

    @property
    def losses(self) -> dict[int, float]:
        """Cv loss by epoch; -1 is the state before the first step."""
        return dict(zip(*series(self.model.cv_rows, "cv_loss"), strict=True))

    @property
    def trained_losses(self) -> list[float]:
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
    """Return the least-squares slope of consecutive values, per step."""
    middle = (len(values) - 1) / 2
    spread = sum((i - middle) ** 2 for i in range(len(values)))
    return sum((i - middle) * value for i, value in enumerate(values)) / spread


def tail_slope(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the slope over the last epochs, and as a share of their mean; None if too few.

    The share is 0 where the mean is 0, as of an accuracy that never left 0.
    """
    tail = values[-TAIL:]
    if len(tail) < 3:
        return None
    found, mean = slope(tail), fmean(tail)
    return found, found / mean if mean else 0.0


def still_falls(losses: Sequence[float]) -> bool:
    """Say whether a cv loss still falls at the end: over the tail, and over its last epochs."""
    moved = tail_slope(losses)
    last = losses[-LAST_EPOCHS:]
    return (
        moved is not None
        and moved[1] < -MOVING
        and last[-1] < last[-2]
        and slope(last) < -MOVING * fmean(last)
    )


def has_short_schedule(losses: Sequence[float]) -> bool:
    """Say whether a cv loss fell until a short schedule ended, but no more at its last epochs."""
    moved = tail_slope(losses)
    has_fallen = moved is not None and moved[1] < -MOVING and not still_falls(losses)
    return has_fallen and len(losses) < SHORT_SCHEDULE * TAIL


def relative_change(before: float, after: float) -> float:
    """Return the change as a share of the value before; 0 where that is 0."""
    return after / before - 1.0 if before else 0.0


def epochs_to(losses: Sequence[float], goal: float) -> int | None:
    """Return the number of epochs until a loss was first at the goal or below; None: never."""
    return next((i + 1 for i, loss in enumerate(losses) if loss <= goal), None)


def are_comparable(first: DiagnosedRun, second: DiagnosedRun) -> bool:
    """Say whether the cv losses of two runs compare, as far as their files tell.

    They do with the same dev list and the same number of outputs.
    """
    lists = [run.model.run.get("cv_data") for run in (first, second)]
    outputs = [run.model.num_outputs for run in (first, second)]
    return all(None in pair or pair[0] == pair[1] for pair in (lists, outputs))
