"""Learnt weights on the distances between hidden features. Axes: N valid frames, C channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.errors import ConfigError
from wekws.runlog.health import HealthRule, RunLog

# A gate's mean over an epoch, 0 to 1: below, no feature passes; above, the gate selects nothing.
GATE_CLOSED, GATE_OPEN = 0.05, 0.98
# Sums over all weights of a batch, from which ``gate_figures`` makes mean and spread.
COUNTS = ("gate_num", "gate_sum", "gate_squares")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Section ``distill_conf.hidden.gate``: a learnt weight, 0 to 1, on each hidden distance."""

    openness: float = 0.0
    """The distance (as ``distance`` measures it) up to which a feature has its full weight; at k
    times this distance it has weight 1 / k. 0: no gate."""
    per: Literal["frame", "channel"] = "frame"
    """One weight per ``frame``, since CTC frames differ in worth (blank or not), or one per frame
    and ``channel``, for squared distances."""

    def __post_init__(self) -> None:
        """Refuse an openness at which the best gate is closed."""
        if self.openness < 0.0:
            raise ConfigError(f"openness: found {self.openness}; expected at least 0")

    @property
    def is_used(self) -> bool:
        """Whether there is a gate."""
        return self.openness > 0.0


class Gate(nn.Module):
    """Linear layer and sigmoid on a teacher's frame, normalised to mean 0 and deviation 1.

    A gate that only weighs the distances, ``sum g d``, has its minimum at g = 0 everywhere: the
    term falls and nothing is imitated. Divided by the mean of g, it would select the easiest frame
    alone, and the parts of a batch would no longer add up. Here each weight costs
    ``openness * -log g``: ``g d - openness * log g`` has its minimum at ``g = openness / d``, and
    at 1 where d is smaller. So no feature gets the weight 0, distant ones count less, and frames
    still add up one by one. With the best gate the student minimises ``openness * log d``. The
    weights start at 1/2; no random number is used.
    Source: the form of Kendall et al. 2018, arXiv:1705.07115 (a learnt weight on a loss
    and its logarithm beside it), here as a function of the teacher's frame.
    """

    def __init__(self, width: int, config: GateConfig) -> None:
        """Make a gate for features of ``width`` channels."""
        super().__init__()
        num_weights = width if config.per == "channel" else 1
        self.linear = nn.utils.skip_init(nn.Linear, width, num_weights)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and their cost, -log of each: (N, 1) or (N, C).

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
    """Return mean and standard deviation of the weights; a mean near 0 is a closed gate."""
    number, total, squares = (counts[name] for name in COUNTS)
    mean = total / number
    variance = squares / number - mean**2
    return {"gate_mean": mean, "gate_spread": max(variance, 0.0) ** 0.5}


def add_counts(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sums of several gates' counts."""
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}


def stuck_gate(log: RunLog) -> str | None:
    """Find a gate that is closed or open for nearly every feature."""
    mean = log.mean("gate_mean")
    if mean is None or GATE_CLOSED <= mean <= GATE_OPEN:
        return None
    if mean < GATE_CLOSED:
        return f"the gate has closed: its mean is {mean:.3f}, hardly a feature is imitated"
    return f"the gate is wide open: its mean is {mean:.3f}, it selects nothing"


HEALTH_RULES = (
    HealthRule(
        "stuck_gate",
        stuck_gate,
        "Change `distill_conf.hidden.gate.openness`, or train without the gate.",
    ),
)
