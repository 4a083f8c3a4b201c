"""Several teachers as one. Axes: B batch, T frames, V vocabulary, K teachers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.distill.frames import valid_frames
from wekws.errors import ConfigError
from wekws.model.model import KwsModel


@dataclass(frozen=True, kw_only=True)
class TeachersConfig:
    """Section ``distill_conf.teachers``: what several teachers weigh against each other.

    mix: ``mean_log_prob``, all alike; ``dev_score``, by their CTC loss on the run's cv set before
    the first step: weights proportional to exp(-cv_loss / scale).
    scale: nats per utterance by which a teacher must be worse to weigh 1 / e of a better one.
    """

    mix: Literal["mean_log_prob", "dev_score"] = "mean_log_prob"
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a scale that orders nothing."""
        if not self.scale > 0.0:
            raise ConfigError(f"scale: found {self.scale}; expected above 0")


def weights_by_score(cv_losses: Sequence[float], scale: float) -> list[float]:
    """Return weights that sum to 1, proportional to exp(-cv_loss / scale).

    cv_losses: CTC, nats per utterance.
    """
    losses = torch.tensor(cv_losses, dtype=torch.float64)
    return (-losses / scale).softmax(dim=0).tolist()


class TeacherEnsemble(nn.Module):
    """Teachers heard as one: the weighted mean of their log-probabilities, renormalised.

    That is the weighted geometric mean of the distributions; teachers may differ in size. Inner
    features, and all else that is asked of one model (``config``, ``backbone``, ``global_cmvn``),
    are the first teacher's.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 1 (arithmetic or geometric mean of an
    ensemble as soft targets).
    """

    def __init__(self, teachers: Sequence[KwsModel]) -> None:
        """Begin with equal ``weights``, one for each of ``members``; they sum to 1."""
        super().__init__()
        self.config = teachers[0].config
        self.global_cmvn, self.backbone = teachers[0].global_cmvn, teachers[0].backbone
        self.others = nn.ModuleList(teachers[1:])
        self.members = tuple(teachers)
        self.weights = [1.0 / len(teachers)] * len(teachers)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log-probabilities (B, T, V), zero on padding.

        feats: (B, T, input_dim). lengths: (B,) valid frames; None: all.
        """
        mixed = sum(
            weight * member(feats, lengths).float().log_softmax(dim=-1)
            for weight, member in zip(self.weights, self.members, strict=True)
        ).log_softmax(dim=-1)
        if lengths is None:
            return mixed
        return mixed * valid_frames(lengths, mixed.shape[1])[..., None]


def weights_of(teacher: nn.Module | None) -> list[float]:
    """Return what each of several teachers weighs; [] for one or none."""
    return teacher.weights if isinstance(teacher, TeacherEnsemble) else []


def restore_weights(teacher: nn.Module | None, weights: Sequence[float]) -> None:
    """Go on with the weights that a run began with, one for each of its teachers."""
    if weights:
        teacher.weights = list(weights)
