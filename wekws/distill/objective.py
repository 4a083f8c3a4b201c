"""What training minimises: a weighted sum of terms, each logged under its own name."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.distill.hidden import HiddenConfig, HiddenTerm
from wekws.distill.inner import InnerConfig, InnerHead
from wekws.distill.schedule import (
    Schedule,
    Scheduled,
    as_schedule,
    checked_schedule,
    is_used,
)
from wekws.distill.stages import Plan
from wekws.distill.taps import Outputs
from wekws.distill.terms import (
    ConsistencyConfig,
    CtcConfig,
    GuideConfig,
    KdConfig,
    consistency_loss,
    ctc_loss,
    guide_loss,
    kd_loss,
    smoothing_loss,
)
from wekws.errors import ConfigError

# What terms listen to: the labels; posteriors, the teacher's or a second view's; the teacher's
# inner features.
TASK_TERMS = ("ctc", "smoothing", "inner_ctc")
LOGIT_TERMS = ("kd", "guide", "inner_kd", "consistency")
FEATURE_TERMS = ("hidden", "gate", "adversarial")


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
    kd, guide, hidden, inner, consistency: the terms of distillation, each with its own weight.
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


@dataclass(frozen=True)
class Targets:
    """What a batch is held against: labels (B, L), and (B,) of them and of valid frames."""

    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor


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
    parameters are adapters and the inner head, trained with the student and never exported.
    Under a plan of stages these say what task, posteriors and features weigh, in place of alpha.
    """

    def __init__(
        self,
        config: DistillConfig,
        ctc: CtcConfig | None = None,
        *,
        has_teacher: bool,
        hidden: HiddenTerm | None = None,
        inner: InnerHead | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Weigh the terms as ``config`` says; a run without a teacher is plain CTC.

        ctc: the task's own loss; None: without label smoothing.
        hidden: the paired layers of student and teacher; None leaves the term out.
        inner: the student's second head; None leaves its terms out.
        plan: the stages; None: alpha alone.
        Raises: ConfigError if a stage weighs terms that are not in use.
        """
        super().__init__()
        self.config, self.ctc = config, ctc or CtcConfig()
        self.hidden, self.inner = hidden, inner
        self._alpha, self._temperature = as_schedule(config.alpha), as_schedule(config.temperature)
        self._stages: dict[str, Schedule] = {}
        if plan is not None:
            self._stages = plan.weights()
            self._temperature = plan.temperature(self._temperature)
        self._distillation: dict[str, Schedule] = {}
        if has_teacher and (plan or config).is_distilling:
            weights = {
                "kd": config.kd.weight,
                "guide": config.guide.weight,
                "hidden": config.hidden.weight if hidden is not None else 0.0,
                "inner_kd": config.inner.weight if inner is not None else 0.0,
                "consistency": config.consistency.weight,
            }
            used = {name: weight for name, weight in weights.items() if is_used(weight)}
            self._distillation = {name: as_schedule(weight) for name, weight in used.items()}
        if plan is not None:
            plan.require_terms({_group(name) for name in self._distillation})

    @classmethod
    def between(
        cls,
        config: DistillConfig,
        ctc: CtcConfig,
        student: nn.Module,
        teacher: nn.Module,
        plan: Plan | None = None,
    ) -> "Objective":
        """Return the objective of a student and its teacher, with the adapters and heads it needs.

        Raises: ConfigError if a term names layers that they do not have.
        """
        hidden = inner = None
        if is_used(config.hidden.weight) and (plan or config).is_distilling:
            hidden = HiddenTerm(config.hidden, student, teacher)
        if is_used(config.inner.weight):
            inner = InnerHead(config.inner, student)
        return cls(config, ctc, has_teacher=True, hidden=hidden, inner=inner, plan=plan)

    @property
    def student_paths(self) -> tuple[str, ...]:
        """Modules of the student whose outputs the terms want."""
        paths = self.hidden.student_paths if self.hidden else ()
        return tuple(dict.fromkeys((*paths, self.inner.path))) if self.inner else paths

    def wants_teacher(self, progress: float) -> bool:
        """False if the teacher's outputs would weigh nothing: they need not be computed."""
        return any(name != "consistency" for name in self._heard(progress))

    def wants_second_view(self, progress: float) -> bool:
        """Whether the student is to hear each utterance twice."""
        return "consistency" in self._heard(progress)

    @property
    def taught(self) -> tuple[str, ...]:
        """Names of the distillation terms in use, be it in one stage only."""
        return tuple(self._distillation)

    @property
    def teacher_paths(self) -> tuple[str, ...]:
        """Modules of the teacher whose outputs the terms want."""
        return self.hidden.teacher_paths if self.hidden else ()

    def alpha(self, progress: float) -> float:
        """Return the task's weight at a progress from 0 to 1."""
        if self._stages:
            return self._stages["task"].at(progress)
        if not self._distillation:
            return 1.0
        return max(self.config.alpha_floor, self._alpha.at(progress))

    def _share(self, name: str, progress: float) -> float:
        """Return what multiplies the own weight of a distillation term."""
        if self._stages:
            return self._stages[_group(name)].at(progress)
        return 1.0 - self.alpha(progress)

    def _heard(self, progress: float) -> tuple[str, ...]:
        """Return the distillation terms to compute: all but those that a stage leaves out."""
        names = tuple(self._distillation)
        return tuple(n for n in names if not self._stages or self._share(n, progress) > 0.0)

    def temperature(self, progress: float) -> float:
        """Return the temperature at a progress from 0 to 1."""
        return self._temperature.at(progress)

    def weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each term that is computed at a progress from 0 to 1."""
        alpha, smoothing = self.alpha(progress), self.ctc.label_smoothing
        weights = {"ctc": alpha * (1.0 - smoothing)}
        if smoothing:
            weights["smoothing"] = alpha * smoothing
        if self.inner is not None:
            weights["inner_ctc"] = alpha * as_schedule(self.config.inner.weight).at(progress)
        for name in self._heard(progress):
            own = self._distillation[name].at(progress)
            weights[name] = self._share(name, progress) * own
        return weights

    def forward(
        self, outputs: Outputs, targets: Targets, num_utterances: int, progress: float
    ) -> Loss:
        """Return the loss of one batch, or of a part of it.

        num_utterances: size of the global batch this one is part of.
        progress: share of training that is done, 0 to 1.
        """
        weights = self.weights(progress)
        sums = self.terms(outputs, targets, progress, weights)
        terms = {name: value / num_utterances for name, value in sums.items()}
        weighted = {name: weights[name] * value for name, value in terms.items()}
        total = torch.stack(list(weighted.values())).sum()
        return Loss(total, {name: value.detach() for name, value in terms.items()}, weighted)

    def terms(
        self,
        outputs: Outputs,
        targets: Targets,
        progress: float,
        wanted: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return each term summed over the utterances of the batch, unweighted.

        Terms that want the teacher's output, a second view or the student's inner features are
        there only if these are. wanted: distillation terms to compute; None: all in use.
        """
        wanted = self.taught if wanted is None else wanted
        logits, lengths = outputs.student.logits, targets.lengths
        labels = (targets.labels, targets.label_lengths)
        sums = {"ctc": ctc_loss(logits, lengths, *labels)}
        if self.ctc.label_smoothing:
            sums["smoothing"] = smoothing_loss(logits, lengths, self.ctc.smoothed_over)
        inner = None
        if self.inner is not None and outputs.student.hidden:
            inner = self.inner(outputs.student.hidden, lengths, logits.shape[1])
            sums["inner_ctc"] = ctc_loss(inner, lengths, *labels)
        if outputs.again is not None:
            sums["consistency"] = consistency_loss(logits, outputs.again.logits, lengths)
        if outputs.teacher is None:
            return sums
        taught = outputs.teacher.logits
        kd = partial(kd_loss, temperature=self.temperature(progress), config=self.config.kd)
        if "kd" in wanted:
            sums["kd"] = kd(logits, taught, lengths)
        if "guide" in wanted:
            sums["guide"] = guide_loss(logits, taught, lengths)
        if "hidden" in wanted:
            sums["hidden"] = self.hidden(outputs.student.hidden, outputs.teacher.hidden)
        if inner is not None and "inner_kd" in wanted:
            sums["inner_kd"] = kd(inner, taught, lengths)
        return sums


def _group(name: str) -> str:
    """Return what ``Stage`` calls the group that a distillation term belongs to."""
    return "feature" if name in FEATURE_TERMS else "distillation"
