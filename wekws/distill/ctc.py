"""The task's own loss: CTC, and label smoothing beside it.

Axes: B batch, T frames, V vocabulary, L label length. Token 0 is blank.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from wekws.distill.frames import take_valid
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import as_schedule
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CtcConfig(MethodConfig):
    """Section ``ctc_conf``: the task's own loss."""

    label_smoothing: float = 0.0
    """Share of the task's weight that pulls towards a uniform distribution, 0 to below 1. It is
    summed over frames, as CTC is, so small values suffice: try 0.01."""
    smoothed_over: Literal["all", "tokens"] = "tokens"
    """Uniform over ``all`` outputs, or over the ``tokens`` among themselves, which leaves the
    probability of blank alone."""

    term_groups = {"ctc": "task", "smoothing": "task"}

    def __post_init__(self) -> None:
        """Refuse smoothing that leaves no CTC."""
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(
                f"label_smoothing: found {self.label_smoothing}; expected 0 to below 1"
            )

    @property
    def is_used(self) -> bool:
        """True: every run has labels."""
        return True

    def build(self, context: MethodContext) -> Method:
        """Return the task's terms."""
        return CtcTask(self)


class CtcTask(Method):
    """Terms ``ctc`` and, where it is on, ``smoothing``."""

    needs_teacher = False

    def __init__(self, config: CtcConfig) -> None:
        """Divide the task's weight between CTC and smoothing."""
        super().__init__()
        self._smoothed_over, share = config.smoothed_over, config.label_smoothing
        always = as_schedule(1.0)
        # Its figure in cv passes is cv_loss, which every run has.
        self.terms = (
            Term(name="ctc", group="task", weight=always, factor=1.0 - share, has_cv_figure=False),
        )
        if share:
            self.terms += (
                Term(
                    name="smoothing",
                    group="task",
                    weight=always,
                    factor=share,
                    has_cv_figure=False,
                ),
            )

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return CTC and smoothing, summed over the batch."""
        logits, targets = inputs.student.logits, inputs.targets
        values = {}
        if "ctc" in wanted:
            values["ctc"] = ctc_loss(logits, targets.lengths, targets.labels, targets.label_lengths)
        if "smoothing" in wanted:
            values["smoothing"] = smoothing_loss(logits, targets.lengths, self._smoothed_over)
        return values


def ctc_loss(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, blank: int = 0
) -> Tensor:
    """Return the CTC negative log-likelihood summed over the utterances of the batch, in nats.

    logits: (B, T, V), unnormalised. lengths: (B,) valid frames. labels: (B, L), padded with
    anything. label_lengths: (B,); 0 is an utterance without speech, all blank. Both lengths are
    best on the CPU, where torch needs them.
    Every utterance must be feasible (the data set leaves out those that are not), so that an
    infinite loss is a fault and not masked.
    Source: Graves et al. 2006, "Connectionist temporal classification", eq. 4 and 8.
    """
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    return F.ctc_loss(log_probs, labels, lengths, label_lengths, blank=blank, reduction="sum")


def smoothing_loss(logits: Tensor, lengths: Tensor, over: Literal["all", "tokens"]) -> Tensor:
    """Return KL(uniform || output) summed over the valid frames, in nats.

    logits: (B, T, V). over: ``all`` outputs, or the ``tokens`` alone, renormalised without blank.
    Source: Kim et al. 2017, arXiv:1711.02212 (label smoothing beside CTC).
    """
    chosen = take_valid(logits, lengths).float()
    log_probs = chosen[:, 1 if over == "tokens" else 0 :].log_softmax(dim=-1)
    num_outputs = log_probs.shape[1]
    return -(log_probs.mean(dim=1) + math.log(num_outputs)).sum()
