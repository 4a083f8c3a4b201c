"""Guided training: the teacher's peaks as a mask. Axes: B batch, T frames, V vocabulary."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from wekws.distill.frames import spoken_frames
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used


@dataclass(frozen=True, kw_only=True)
class GuideConfig(MethodConfig):
    """Section ``distill_conf.guide``: the teacher's peaks as a mask."""

    weight: Scheduled = 0.0
    """Weight within distillation; 0: off."""

    term_groups = {"guide": "distillation"}

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        checked_schedule("weight", self.weight, 0.0)

    @property
    def is_used(self) -> bool:
        """Whether the term ever has a weight."""
        return is_used(self.weight)

    def build(self, context: MethodContext) -> Method | None:
        """Return the method; None where it is off or nothing is distilled."""
        return GuideMethod(self) if self.is_used and context.is_distilling else None


class GuideMethod(Method):
    """Term ``guide``."""

    def __init__(self, config: GuideConfig) -> None:
        """Weigh the term as ``config`` says."""
        super().__init__()
        weight = as_schedule(config.weight)
        self.terms = (Term(name="guide", group="distillation", weight=weight),)

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the loss, summed over the teacher's peaks."""
        if "guide" not in wanted:
            return {}
        logits = inputs.student.logits
        return {"guide": guide_loss(logits, inputs.teacher.logits, inputs.targets.lengths)}


def guide_loss(student_logits: Tensor, teacher_logits: Tensor, lengths: Tensor) -> Tensor:
    """Return what the student's posterior lacks at the teacher's peaks, summed over them.

    student_logits, teacher_logits: (B, T, V). A peak is a valid frame whose best token for the
    teacher is not blank; there it adds 1 - p_student(that token). Elsewhere the student is free.
    Source: Kurata and Audhkhasi 2019, arXiv:1904.08311 (the masked posteriors, here subtracted
    from 1 so that the value is 0 at best; the gradient is the same).
    """
    peaks = spoken_frames(teacher_logits, lengths)
    tokens = teacher_logits[peaks].argmax(dim=-1, keepdim=True)
    probs = student_logits[peaks].float().softmax(dim=-1)
    return (1.0 - probs.gather(1, tokens)).sum()
