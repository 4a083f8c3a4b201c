"""Weights of task, distillation and features against each other over training."""

from typing import Protocol

from wekws.distill.method import Group
from wekws.distill.schedule import Schedule


class Weighting(Protocol):
    """Weights of the three groups of terms, and the temperature, over training."""

    def weight(self, group: Group, progress: float) -> float:
        """Return the weight of a group at a progress from 0 to 1."""

    def leaves_out(self, group: Group, progress: float) -> bool:
        """Return whether the terms of a group are not even computed."""

    def temperature(self, progress: float) -> float:
        """Return the temperature at a progress from 0 to 1."""


class AlphaWeighting:
    """Alpha weighs the task, 1 - alpha distillation and features alike."""

    def __init__(self, alpha: Schedule, alpha_floor: float, temperature: Schedule) -> None:
        """alpha_floor: alpha never falls below it, so that CTC stays on; 0 to 1."""
        self._alpha, self._floor, self._temperature = alpha, alpha_floor, temperature

    def weight(self, group: Group, progress: float) -> float:
        """Return the weight of a group at a progress from 0 to 1."""
        alpha = max(self._floor, self._alpha.at(progress))
        return alpha if group == "task" else 1.0 - alpha

    def leaves_out(self, group: Group, progress: float) -> bool:
        """Return False: a term of weight 0 is still logged."""
        return False

    def temperature(self, progress: float) -> float:
        """Return the temperature at a progress from 0 to 1."""
        return self._temperature.at(progress)


class BesideTask:
    """Weighting of a run that is not distilled from a teacher's checkpoint: 1 for every group.

    The terms' own weights are then relative to the task.
    """

    def weight(self, group: Group, progress: float) -> float:
        """Return 1."""
        return 1.0

    def leaves_out(self, group: Group, progress: float) -> bool:
        """Return False."""
        return False

    def temperature(self, progress: float) -> float:
        """Return 1: nothing is distilled."""
        return 1.0
