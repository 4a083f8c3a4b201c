"""Choice among teachers that differ in the seed alone, by the false rejections on dev.

A dev set of some hundred positives tells few teachers apart: the best of three on dev is often not
the best elsewhere. So only those are left out that dev shows to be worse than the best; the
student is distilled from all the others together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wekws.errors import ConfigError
from wekws.score.det import Budget
from wekws.score.paired import Bootstrap, Estimate, estimate, read_trials


@dataclass(frozen=True, kw_only=True)
class TeacherStanding:
    """A teacher beside the best one on dev."""

    checkpoint: Path
    """The teacher."""
    frr: Estimate
    """FRR on dev, mean over keywords, at the budget of dev's own curve."""
    above_best: Estimate
    """Its FRR minus that of the best teacher, on the same resamples; 0 for the best itself."""

    @property
    def is_kept(self) -> bool:
        """Whether the interval of the difference reaches down to 0 (95 %, so 2.5 % below)."""
        return self.above_best.low <= 0.0

    def __str__(self) -> str:
        """Return one line for the log."""
        verdict = "kept" if self.is_kept else "left out: worse than the best by more than chance"
        frr, above = self.frr, self.above_best
        return (
            f"{self.checkpoint}: FRR on dev {100 * frr.value:.1f} % ({100 * frr.low:.1f} to "
            f"{100 * frr.high:.1f}), {100 * above.value:+.1f} ({100 * above.low:+.1f} to "
            f"{100 * above.high:+.1f}) points from the best; {verdict}"
        )


def rank_teachers(checkpoints: Sequence[Path], budget: Budget) -> list[TeacherStanding]:
    """Return the teachers, that of the lowest FRR on dev first; equal ones in the order given.

    checkpoints: each with its dev scores in ``dev_NAME`` beside it (``evaluate.sh --dataset dev``).
    budget: false alarms per hour on dev, each teacher at its own threshold.
    Raises: ConfigError if there are none; DataError if scores are missing or of different sets.
    """
    if not checkpoints:
        raise ConfigError("no teachers to choose among; expected one or more checkpoints")
    trials = [read_trials(path.parent / f"dev_{path.stem}") for path in checkpoints]
    bootstrap = Bootstrap(trials[0].keys)
    rates = [bootstrap.frr([run], None, budget) for run in trials]
    order = sorted(range(len(rates)), key=lambda index: float(rates[index][0]))
    best = rates[order[0]]
    return [
        TeacherStanding(
            checkpoint=checkpoints[index],
            frr=estimate(rates[index]),
            above_best=estimate(np.asarray(rates[index] - best)),
        )
        for index in order
    ]
