"""What training minimises: a weighted sum of terms, each logged under its own name."""

from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from wekws.distill import adversarial as judges
from wekws.distill import gate as gates
from wekws.distill.adversarial import Discriminators
from wekws.distill.distill_conf import DistillConfig
from wekws.distill.hidden import Aligned, HiddenTerm
from wekws.distill.inner_head import InnerHead
from wekws.distill.loss import FEATURE_TERMS, Loss, Targets
from wekws.distill.schedule import (
    Schedule,
    as_schedule,
    is_used,
)
from wekws.distill.stages import StagePlan
from wekws.distill.taps import Outputs
from wekws.distill.terms import (
    CtcConfig,
    consistency_loss,
    ctc_loss,
    guide_loss,
    kd_loss,
    smoothing_loss,
)


class Objective(nn.Module):
    """``alpha * CTC + (1 - alpha) * (kd * T^2 * KL(teacher || student) + ...)``.

    CTC alone (and its label smoothing) without a teacher. Values are nats per utterance: sums
    over the frames of an utterance, divided by the number of utterances of the whole (global)
    batch, so that the shares of several processes, and of a batch in parts, add up. Its
    parameters are adapters, gates, the inner head (trained with the student) and discriminators
    (trained against it); none is ever exported.
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
        rivals: Discriminators | None = None,
        plan: StagePlan | None = None,
    ) -> None:
        """Weigh the terms as ``config`` says; a run without a teacher is plain CTC.

        ctc: the task's own loss; None: without label smoothing.
        hidden: the paired layers of student and teacher; None leaves the term out.
        inner: the student's second head; None leaves its terms out.
        rivals: judges of the paired layers; None leaves the adversarial term out.
        plan: the stages; None: alpha alone.
        Raises: ConfigError if a stage weighs terms that are not in use.
        """
        super().__init__()
        self.config, self.ctc = config, ctc or CtcConfig()
        self.hidden, self.inner, self.rivals = hidden, inner, rivals
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
                "adversarial": config.adversarial.weight if rivals is not None else 0.0,
            }
            used = {name: weight for name, weight in weights.items() if is_used(weight)}
            self._distillation = {name: as_schedule(weight) for name, weight in used.items()}
        self._has_gates = hidden is not None and len(hidden.gates) > 0
        self.counts = gates.COUNTS if self._has_gates else ()
        if rivals is not None:
            self.counts += judges.COUNTS
        if plan is not None:
            plan.require_terms({_group(name) for name in self._distillation})

    @classmethod
    def between(
        cls,
        config: DistillConfig,
        ctc: CtcConfig,
        student: nn.Module,
        teacher: nn.Module,
        plan: StagePlan | None = None,
    ) -> "Objective":
        """Return the objective of a student and its teacher, with the adapters and heads it needs.

        Raises: ConfigError if a term names layers that they do not have.
        """
        hidden = inner = rivals = None
        is_distilling = (plan or config).is_distilling
        has_rivals = is_distilling and is_used(config.adversarial.weight)
        if has_rivals or (is_distilling and is_used(config.hidden.weight)):
            hidden = HiddenTerm(config.hidden, student, teacher)
        if has_rivals:
            rivals = Discriminators(config.adversarial, hidden.widths)
        if is_used(config.inner.weight):
            inner = InnerHead(config.inner, student)
        heads = {"hidden": hidden, "inner": inner, "rivals": rivals}
        return cls(config, ctc, has_teacher=True, **heads, plan=plan)

    @property
    def trained_parameters(self) -> list[nn.Parameter]:
        """What moves with the student: all but the discriminators, which move against it."""
        theirs = set(self.rivals.parameters()) if self.rivals is not None else set()
        return [p for p in self.parameters() if p not in theirs]

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
        if self._has_gates and "hidden" in weights:
            weights["gate"] = self.config.hidden.gate.openness * weights["hidden"]
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
        counts = {name: sums.pop(name) for name in self.counts if name in sums}
        terms = {name: value / num_utterances for name, value in sums.items()}
        weighted = {name: weights[name] * value for name, value in terms.items()}
        total = torch.stack(list(weighted.values())).sum()
        detached = {name: value.detach() for name, value in terms.items()}
        return Loss(total, detached, weighted, counts)

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return what the sums of ``self.counts`` over some steps say of gates and rivals.

        Nothing where a stage left them out.
        """
        figures = {}
        if counts.get("gate_num"):
            figures |= gates.gate_figures(counts)
        if counts.get("judged"):
            figures |= judges.verdict_figures(counts)
        return figures

    def aligned(self, outputs: Outputs) -> list[Aligned]:
        """Return the features of the paired layers."""
        return self.hidden.aligned(outputs.student.hidden, outputs.teacher.hidden)

    def terms(
        self,
        outputs: Outputs,
        targets: Targets,
        progress: float,
        wanted: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return each term summed over the utterances of the batch, unweighted.

        Terms that want the teacher's output, a second view or the student's inner features are
        there only if these are. Beside them stand the counts of gates, where these are at work.
        wanted: distillation terms to compute; None: all in use.
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
        if "hidden" in wanted or "adversarial" in wanted:
            aligned = self.aligned(outputs)
            if "hidden" in wanted:
                sums |= self.hidden(aligned)
            if "adversarial" in wanted:
                sums["adversarial"] = self.rivals(aligned)
        if inner is not None and "inner_kd" in wanted:
            sums["inner_kd"] = kd(inner, taught, lengths)
        return sums


def _group(name: str) -> str:
    """Return what ``Stage`` calls the group that a distillation term belongs to."""
    return "feature" if name in FEATURE_TERMS else "distillation"
