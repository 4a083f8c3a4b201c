"""Several teachers, mixed into one. Axes: B batch, T frames, V vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wekws.distill.frames import valid_frames
from wekws.distill.hook import TrainingHook, TrainingRun
from wekws.errors import ConfigError
from wekws.model.model import KwsModel


@dataclass(frozen=True, kw_only=True)
class TeachersConfig:
    """Section ``distill_conf.teachers``: weights of several teachers relative to each other."""

    mix: Literal["mean_log_prob", "dev_score"] = "mean_log_prob"
    """``mean_log_prob``: equal weights; ``dev_score``: by their CTC loss on the run's cv set before
    the first step, weights proportional to exp(-cv_loss / scale)."""
    scale: float = 1.0
    """Nats per utterance by which a teacher must be worse to get 1 / e of a better one's weight."""

    def __post_init__(self) -> None:
        """Refuse a scale that is no scale."""
        if not self.scale > 0.0:
            raise ConfigError(f"scale: found {self.scale}; expected above 0")


def weights_by_score(cv_losses: Sequence[float], scale: float) -> list[float]:
    """Return weights that sum to 1, proportional to exp(-cv_loss / scale).

    cv_losses: CTC, nats per utterance.
    """
    losses = torch.tensor(cv_losses, dtype=torch.float64)
    return (-losses / scale).softmax(dim=0).tolist()


class TeacherEnsemble(KwsModel):
    """The weighted mean of several teachers' log-probabilities, renormalised.

    That is the weighted geometric mean of the distributions; teachers may differ in size. Inner
    features, and everything else that a single model has (``config``, ``backbone``,
    ``global_cmvn``), are the first teacher's.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 1 (arithmetic or geometric mean of an
    ensemble as soft targets).
    """

    def __init__(self, teachers: Sequence[KwsModel]) -> None:
        """Begin with equal ``weights``, one for each of ``members``; they sum to 1."""
        nn.Module.__init__(self)
        self.config = teachers[0].config
        self.global_cmvn, self.backbone = teachers[0].global_cmvn, teachers[0].backbone
        self.others = nn.ModuleList(teachers[1:])
        self.members = tuple(teachers)
        self.weights = [1.0 / len(teachers)] * len(teachers)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log-probabilities (B, T, V), zero on padding.

        feats: (B, T, input_dim). lengths: (B,) valid frames; None: all.
        """
        mixed = self._weighted(feats, lengths, 0)
        for index in range(1, len(self.members)):
            mixed = mixed + self._weighted(feats, lengths, index)
        mixed = mixed.log_softmax(dim=-1)
        if lengths is None:
            return mixed
        return mixed * valid_frames(lengths, mixed.shape[1], mixed.device)[..., None]

    def _weighted(self, feats: Tensor, lengths: Tensor | None, index: int) -> Tensor:
        log_probs = self.members[index](feats, lengths).float().log_softmax(dim=-1)
        return self.weights[index] * log_probs


class TeacherWeights(TrainingHook):
    """Sets the weights of several teachers before the first step; a resumed run keeps them."""

    name = "teacher_weights"

    def __init__(self, config: TeachersConfig) -> None:
        """Weigh as ``config`` says."""
        self._config = config

    def before_training(self, run: TrainingRun) -> None:
        """Measure each teacher's CTC loss on the cv set; log losses and weights."""
        ensemble = run.teacher
        if not isinstance(ensemble, TeacherEnsemble) or self._config.mix != "dev_score":
            return
        losses = [run.cv_loss(member) for member in ensemble.members]
        ensemble.weights = weights_by_score(losses, self._config.scale)
        row = {f"cv_loss_{i}": loss for i, loss in enumerate(losses, 1)}
        row |= {f"weight_{i}": weight for i, weight in enumerate(ensemble.weights, 1)}
        run.log("teachers", {"epoch": -1, **row})

    def state(self, run: TrainingRun) -> dict[str, Any]:
        """Return the weights, if there are several teachers."""
        teacher = run.teacher
        return {"weights": teacher.weights} if isinstance(teacher, TeacherEnsemble) else {}

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> None:
        """Set the weights."""
        assert isinstance(run.teacher, TeacherEnsemble)
        run.teacher.weights = list(state["weights"])
