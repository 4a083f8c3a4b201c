"""Weights of labels and teacher, without torch: options are checked before it is imported."""

from dataclasses import dataclass

from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """The part of section ``distill_conf`` that weighs labels and teacher.

    A weight or temperature is a number, the name of a shape (``alpha: cosine_growth``) or a
    whole schedule (``temperature: {shape: linear, start: 6, end: 3}``).
    """

    alpha: Scheduled = 0.5
    """Weight of CTC, the labels; ``1 - alpha`` weighs distillation, all its terms. 0 to 1. Without
    a teacher's checkpoint it has no effect: CTC has the weight 1, and so have the embeddings of a
    feature teacher, beside their own weight."""
    alpha_floor: float = 0.05
    """A schedule does not take alpha below this, so that CTC stays on; 0 to 1."""
    temperature: Scheduled = 2.0
    """Divides the logits of both models before they are compared; above 0."""

    def __post_init__(self) -> None:
        """Refuse weights and temperatures that mean nothing."""
        alpha = checked_schedule("alpha", self.alpha, 0.0, 1.0)
        if not 0.0 <= self.alpha_floor <= 1.0:
            raise ConfigError(f"alpha_floor: found {self.alpha_floor}; expected 0 to 1")
        if alpha.extremes[1] < self.alpha_floor:
            raise ConfigError(
                f"alpha: at most {alpha.extremes[1]:g}, below alpha_floor {self.alpha_floor:g}; "
                "lower the floor, to 0 for distillation alone"
            )
        checked_schedule("temperature", self.temperature, 0.01, 1000.0)

    @property
    def is_distilling(self) -> bool:
        """Whether alpha ever leaves distillation a weight."""
        return max(self.alpha_floor, as_schedule(self.alpha).extremes[0]) < 1.0
