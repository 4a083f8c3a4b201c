"""Which of the teacher's features are imitated. Axes: N valid frames, C channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.errors import ConfigError

# Sums over all weights of a batch, from which ``gate_figures`` makes mean and spread.
COUNTS = ("gate_num", "gate_sum", "gate_squares")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Section ``distill_conf.hidden.gate``: a learnt weight, 0 to 1, on each hidden distance.

    openness: the distance (as ``distance`` measures it) up to which a feature is imitated in
    full; one of k times this distance weighs 1 / k. 0: no gate.
    per: one weight a ``frame``, since in CTC it is frames that differ in worth (blank or not),
    or one a frame and ``channel``, for the squared distances.
    """

    openness: float = 0.0
    per: Literal["frame", "channel"] = "frame"

    def __post_init__(self) -> None:
        """Refuse a gate that would want to close."""
        if self.openness < 0.0:
            raise ConfigError(f"openness: found {self.openness}; expected at least 0")

    @property
    def is_used(self) -> bool:
        """Whether there is a gate."""
        return self.openness > 0.0


class Gate(nn.Module):
    """Linear and sigmoid on a teacher's frame, brought to mean 0 and deviation 1.

    A gate that only weighs the distances, ``sum g d``, is best at g = 0 everywhere: the term falls
    and nothing is imitated. Divided by the mean of g it would shut every frame but the easiest,
    and batches in parts would no longer add up. Here each weight pays ``openness * -log g``:
    ``g d - openness * log g`` is least at ``g = openness / d``, and at 1 where d is smaller, so
    that no feature is ever shut, far ones only count less, and frames still add up one by one.
    With the gate at its best the student minimises ``openness * log d``. Starts at 1/2
    everywhere, for which no random number is spent.
    Source: the form of Kendall et al. 2018, arXiv:1705.07115 (a learnt weight on a loss
    and its logarithm beside it), here as a function of the teacher's frame.
    """

    def __init__(self, width: int, config: GateConfig) -> None:
        """Put a gate on features of ``width`` channels."""
        super().__init__()
        num_weights = width if config.per == "channel" else 1
        self.linear = nn.utils.skip_init(nn.Linear, width, num_weights)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and what they pay, -log of each: (N, 1) or (N, C).

        teacher: (N, C).
        """
        scores = self.linear(F.layer_norm(teacher, teacher.shape[1:]))
        return scores.sigmoid(), F.softplus(-scores)


def count_weights(weights: Tensor) -> dict[str, Tensor]:
    """Return the sums of a batch's weights that ``gate_figures`` is made from."""
    weights = weights.detach().double()
    number = weights.new_tensor(weights.numel())
    values = (number, weights.sum(), weights.square().sum())
    return dict(zip(COUNTS, values, strict=True))


def gate_figures(counts: Mapping[str, float]) -> dict[str, float]:
    """Return mean and standard deviation of the weights: near 0, a gate that has closed."""
    number, total, squares = (counts[name] for name in COUNTS)
    mean = total / number
    variance = squares / number - mean**2
    return {"gate_mean": mean, "gate_spread": max(variance, 0.0) ** 0.5}


def add_counts(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sums of several gates' counts."""
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
