"""What training minimises: a weighted sum of terms, each logged under its own name."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.distill.terms import ctc_loss, kd_loss
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Section ``distill_conf``: how the student listens to its teacher.

    alpha: weight of CTC; ``1 - alpha`` weighs the distillation term. 0 to 1.
    temperature: softens both distributions before they are compared; above 0.
    """

    alpha: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        """Refuse weights and temperatures that mean nothing."""
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha: found {self.alpha}; expected 0 to 1")
        if not self.temperature > 0.0:
            raise ConfigError(f"temperature: found {self.temperature}; expected above 0")


@dataclass(frozen=True)
class Loss:
    """One batch's loss. ``total`` carries the gradient; ``terms`` are unweighted and detached."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective:
    """``alpha * CTC + (1 - alpha) * T^2 * KL(teacher || student)``; CTC alone without a teacher.

    Values are nats per utterance: sums over the frames of an utterance, divided by the number of
    utterances of the whole (global) batch, so that the shares of several processes add up.
    """

    def __init__(self, config: DistillConfig, *, has_teacher: bool) -> None:
        """Weigh the terms as ``config`` says; a run without a teacher is plain CTC."""
        self.temperature = config.temperature
        self.weights = {"ctc": 1.0}
        if has_teacher and config.alpha < 1.0:
            self.weights = {"ctc": config.alpha, "kd": 1.0 - config.alpha}

    @property
    def wants_teacher(self) -> bool:
        """False if the teacher's posteriors would weigh nothing: they need not be computed."""
        return "kd" in self.weights

    def __call__(
        self,
        logits: Tensor,
        teacher_logits: Tensor | None,
        lengths: Tensor,
        labels: Tensor,
        label_lengths: Tensor,
        num_utterances: int,
    ) -> Loss:
        """Return the loss of one batch.

        logits, teacher_logits: (B, T, V). lengths, label_lengths: (B,). labels: (B, L).
        num_utterances: size of the global batch this one is part of.
        """
        sums = self.terms(logits, teacher_logits, lengths, labels, label_lengths)
        terms = {name: value / num_utterances for name, value in sums.items()}
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return Loss(total, {name: value.detach() for name, value in terms.items()})

    def terms(
        self,
        logits: Tensor,
        teacher_logits: Tensor | None,
        lengths: Tensor,
        labels: Tensor,
        label_lengths: Tensor,
    ) -> dict[str, Tensor]:
        """Return each term summed over the utterances of the batch, unweighted."""
        sums = {"ctc": ctc_loss(logits, lengths, labels, label_lengths)}
        if teacher_logits is not None:
            sums["kd"] = kd_loss(logits, teacher_logits, lengths, temperature=self.temperature)
        return sums

    def weigh(self, terms: dict[str, float]) -> float:
        """Return the weighted sum of logged term values."""
        return sum(self.weights[name] * value for name, value in terms.items())
