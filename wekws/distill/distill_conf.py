"""Section ``distill_conf``: every term of distillation with its weight."""

from dataclasses import dataclass, field
from typing import Literal

from wekws.distill.adversarial import AdversarialConfig
from wekws.distill.ensemble import TeachersConfig
from wekws.distill.hidden import HiddenConfig
from wekws.distill.inner_head import InnerConfig
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule
from wekws.distill.terms import ConsistencyConfig, GuideConfig, KdConfig
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Section ``distill_conf``: how the student listens to its teacher.

    A weight or temperature is a number, the name of a shape (``alpha: cosine_growth``) or a
    whole schedule (``temperature: {shape: linear, start: 6, end: 3}``).

    alpha: weight of CTC; ``1 - alpha`` weighs distillation, all its terms. 0 to 1.
    alpha_floor: below which a schedule does not take alpha, so that CTC stays on; 0 to 1.
    temperature: softens both distributions before they are compared; above 0.
    teacher_view: whether the teacher hears SpecAugment's masks as the ``student`` does, or the
    ``clean`` features.
    kd, guide, hidden, inner, consistency, adversarial: the terms of distillation, each with its
    own weight.
    teachers: how several of them are mixed.
    """

    alpha: Scheduled = 0.5
    alpha_floor: float = 0.05
    temperature: Scheduled = 2.0
    teacher_view: Literal["student", "clean"] = "student"
    kd: KdConfig = field(default_factory=KdConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    teachers: TeachersConfig = field(default_factory=TeachersConfig)

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
        if not as_schedule(self.temperature).extremes[0] > 0.0:
            raise ConfigError(f"temperature: found {self.temperature}; expected above 0")

    @property
    def is_distilling(self) -> bool:
        """Whether alpha ever leaves distillation a weight."""
        return max(self.alpha_floor, as_schedule(self.alpha).extremes[0]) < 1.0
