"""What training minimises: a weighted sum of terms, each logged under its own name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.distill.hidden import HiddenConfig, HiddenTerm
from wekws.distill.schedule import Schedule, Scheduled, as_schedule, checked_schedule
from wekws.distill.taps import Output
from wekws.distill.terms import (
    CtcConfig,
    GuideConfig,
    KdConfig,
    ctc_loss,
    guide_loss,
    kd_loss,
    smoothing_loss,
)
from wekws.errors import ConfigError

# The terms that know the labels; the others listen to the teacher.
TASK_TERMS = ("ctc", "smoothing")


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
    kd, guide, hidden: the terms of distillation, each with its own weight.
    """

    alpha: Scheduled = 0.5
    alpha_floor: float = 0.05
    temperature: Scheduled = 2.0
    teacher_view: Literal["student", "clean"] = "student"
    kd: KdConfig = field(default_factory=KdConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    hidden: HiddenConfig = field(default_factory=HiddenConfig)

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


@dataclass(frozen=True)
class Loss:
    """One batch's loss. ``total`` carries the gradient, and so does each of ``weighted``.

    terms: unweighted and detached. weighted: their parts of the total.
    """

    total: Tensor
    terms: dict[str, Tensor]
    weighted: dict[str, Tensor]


def add_losses(parts: Sequence[Loss]) -> Loss:
    """Return the loss of a batch from those of its parts, without gradients."""
    return Loss(
        torch.stack([part.total.detach() for part in parts]).sum(),
        {n: torch.stack([p.terms[n] for p in parts]).sum() for n in parts[0].terms},
        {n: torch.stack([p.weighted[n].detach() for p in parts]).sum() for n in parts[0].weighted},
    )


class Objective(nn.Module):
    """``alpha * CTC + (1 - alpha) * (kd * T^2 * KL(teacher || student) + ...)``.

    CTC alone (and its label smoothing) without a teacher. Values are nats per utterance: sums
    over the frames of an utterance, divided by the number of utterances of the whole (global)
    batch, so that the shares of several processes, and of a batch in parts, add up. Its
    parameters are the adapters of the hidden term, trained with the student.
    """

    def __init__(
        self,
        config: DistillConfig,
        ctc: CtcConfig | None = None,
        *,
        has_teacher: bool,
        hidden: HiddenTerm | None = None,
    ) -> None:
        """Weigh the terms as ``config`` says; a run without a teacher is plain CTC.

        ctc: the task's own loss; None: without label smoothing.
        hidden: the paired layers of student and teacher; None leaves the term out.
        """
        super().__init__()
        self.config, self.ctc, self.hidden = config, ctc or CtcConfig(), hidden
        self._alpha, self._temperature = as_schedule(config.alpha), as_schedule(config.temperature)
        self._distillation: dict[str, Schedule] = {}
        if has_teacher:
            weights = {"kd": config.kd.weight, "guide": config.guide.weight}
            if hidden is not None:
                weights["hidden"] = config.hidden.weight
            schedules = {name: as_schedule(weight) for name, weight in weights.items()}
            self._distillation = {n: s for n, s in schedules.items() if s.extremes[1] > 0.0}
        self.names = tuple(self.weights(0.0))

    @classmethod
    def between(
        cls, config: DistillConfig, ctc: CtcConfig, student: nn.Module, teacher: nn.Module
    ) -> "Objective":
        """Return the objective of a student and its teacher, with adapters where widths differ.

        Raises: ConfigError if the hidden term names layers that they do not have.
        """
        uses_hidden = as_schedule(config.hidden.weight).extremes[1] > 0.0
        hidden = HiddenTerm(config.hidden, student, teacher) if uses_hidden else None
        return cls(config, ctc, has_teacher=True, hidden=hidden)

    @property
    def student_paths(self) -> tuple[str, ...]:
        """Modules of the student whose outputs the terms want."""
        return self.hidden.student_paths if self.hidden else ()

    @property
    def taught(self) -> tuple[str, ...]:
        """Names of the distillation terms in use."""
        return tuple(self._distillation)

    @property
    def teacher_paths(self) -> tuple[str, ...]:
        """Modules of the teacher whose outputs the terms want."""
        return self.hidden.teacher_paths if self.hidden else ()

    def alpha(self, progress: float) -> float:
        """Return the task's weight at a progress from 0 to 1."""
        if not self._distillation:
            return 1.0
        return max(self.config.alpha_floor, self._alpha.at(progress))

    def temperature(self, progress: float) -> float:
        """Return the temperature at a progress from 0 to 1."""
        return self._temperature.at(progress)

    def weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each term at a progress from 0 to 1."""
        alpha, smoothing = self.alpha(progress), self.ctc.label_smoothing
        weights = {"ctc": alpha * (1.0 - smoothing)}
        if smoothing:
            weights["smoothing"] = alpha * smoothing
        for name, schedule in self._distillation.items():
            weights[name] = (1.0 - alpha) * schedule.at(progress)
        return weights

    def forward(
        self,
        student: Output,
        teacher: Output | None,
        lengths: Tensor,
        labels: Tensor,
        label_lengths: Tensor,
        num_utterances: int,
        progress: float,
    ) -> Loss:
        """Return the loss of one batch, or of a part of it.

        student, teacher: logits (B, T, V). lengths, label_lengths: (B,). labels: (B, L).
        num_utterances: size of the global batch this one is part of.
        progress: share of training that is done, 0 to 1.
        """
        sums = self.terms(student, teacher, lengths, labels, label_lengths, progress)
        terms = {name: value / num_utterances for name, value in sums.items()}
        weights = self.weights(progress)
        weighted = {name: weights[name] * value for name, value in terms.items()}
        total = torch.stack(list(weighted.values())).sum()
        return Loss(total, {name: value.detach() for name, value in terms.items()}, weighted)

    def terms(
        self,
        student: Output,
        teacher: Output | None,
        lengths: Tensor,
        labels: Tensor,
        label_lengths: Tensor,
        progress: float,
    ) -> dict[str, Tensor]:
        """Return each term summed over the utterances of the batch, unweighted.

        teacher: None leaves the terms of distillation out.
        """
        logits = student.logits
        sums = {"ctc": ctc_loss(logits, lengths, labels, label_lengths)}
        if self.ctc.label_smoothing:
            sums["smoothing"] = smoothing_loss(logits, lengths, self.ctc.smoothed_over)
        if teacher is None:
            return sums
        taught = teacher.logits
        if "kd" in self._distillation:
            heat = self.temperature(progress)
            kd = kd_loss(logits, taught, lengths, temperature=heat, config=self.config.kd)
            sums["kd"] = kd
        if "guide" in self._distillation:
            sums["guide"] = guide_loss(logits, taught, lengths)
        if "hidden" in self._distillation:
            sums["hidden"] = self.hidden(student.hidden, teacher.hidden)
        return sums
