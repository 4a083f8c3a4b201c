"""Consistency between two SpecAugment views. Axes: B batch, T frames, V vocabulary."""

from collections.abc import Collection
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from wekws.distill.frames import take_valid
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(MethodConfig):
    """Section ``distill_conf.consistency``: the student's outputs on two views of an utterance."""

    weight: Scheduled = 0.0
    """Weight within distillation; 0: off. Where it is on, the student runs on two views of each
    utterance, with SpecAugment masks drawn independently."""

    term_groups = {"consistency": "distillation"}

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        checked_schedule("weight", self.weight, 0.0)

    @property
    def is_used(self) -> bool:
        """Whether the term ever has a weight."""
        return is_used(self.weight)

    def build(self, context: MethodContext) -> Method | None:
        """Return the method; None where it is off or nothing is distilled."""
        return ConsistencyMethod(self) if self.is_used and context.is_distilling else None


class ConsistencyMethod(Method):
    """Term ``consistency``; cv passes have no masks, and so no figure of it."""

    needs_teacher = False
    needs_second_view = True

    def __init__(self, config: ConsistencyConfig) -> None:
        """Weigh the term as ``config`` says."""
        super().__init__()
        weight = as_schedule(config.weight)
        self.terms = (
            Term(name="consistency", group="distillation", weight=weight, has_cv_figure=False),
        )

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the loss, summed over the valid frames."""
        if "consistency" not in wanted:
            return {}
        logits, other = inputs.student.logits, inputs.second_view.logits
        return {"consistency": consistency_loss(logits, other, inputs.targets.lengths)}


def consistency_loss(logits: Tensor, other_logits: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean of KL(other || one) and KL(one || other), summed over the valid frames.

    logits, other_logits: (B, T, V), of one student and two views. Each is target for the other
    without passing a gradient there.
    Source: Yao et al. 2024, arXiv:2410.05101 (CR-CTC), with CTC on the first view alone.
    """
    both = (take_valid(x, lengths).float() for x in (logits, other_logits))
    one, other = (x.log_softmax(dim=-1) for x in both)
    forth = F.kl_div(one, other.detach(), reduction="sum", log_target=True)
    back = F.kl_div(other, one.detach(), reduction="sum", log_target=True)
    return 0.5 * (forth + back)
