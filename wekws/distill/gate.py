"""Learnt weights on the distances between hidden features.

Axes: B batch, T frames, V vocabulary, N valid frames, C channels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.distill.frames import take_valid
from wekws.errors import ConfigError
from wekws.runlog.health import HealthRule, RunLog

# A gate's mean over an epoch, 0 to 1: below, no feature passes; above, the gate selects nothing.
GATE_CLOSED, GATE_OPEN = 0.05, 0.98
# Kinds of frames, by the teacher's best token.
FRAME_KINDS = ("blank", "keyword")
# Sums over all weights of a batch, from which ``GateCounts.figures`` makes mean and spread.
_WHOLE = ("gate_num", "gate_sum", "gate_squares")


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


class GateCounts:
    """Sums over the weights of all gates, as a whole, by pair of layers and by kind of frame."""

    def __init__(self, pairs: Sequence[str], keyword_tokens: Collection[int]) -> None:
        """Name the pairs, each by a name of its own, and the tokens of the keywords.

        keyword_tokens: empty: every token but blank (0) and filler (1).
        """
        self._pairs, self._keyword_tokens = tuple(pairs), sorted(keyword_tokens)
        groups = (*self._pairs, *FRAME_KINDS)
        self.names = (*_WHOLE, *(f"gate_{kind}_{g}" for g in groups for kind in ("num", "sum")))

    def of(self, weights: Sequence[Tensor], logits: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Return the sums of a batch, by the names in ``names``.

        weights: one tensor (N, 1) or (N, C) per pair. logits: (B, T, V), the teacher's; lengths:
        (B,) valid frames.
        """
        stacked = torch.stack([w.detach().double().mean(dim=1) for w in weights])
        whole = torch.cat([w.detach().double().flatten() for w in weights])
        counts = dict(
            zip(
                _WHOLE,
                (whole.new_tensor(whole.numel()), whole.sum(), whole.square().sum()),
                strict=True,
            )
        )
        for name, frames in zip(self._pairs, stacked, strict=True):
            counts |= _sums(name, frames)
        best = take_valid(logits, lengths).argmax(dim=-1)
        is_keyword = best > 1
        if self._keyword_tokens:
            is_keyword = torch.isin(best, best.new_tensor(self._keyword_tokens))
        for kind, chosen in zip(FRAME_KINDS, (best == 0, is_keyword), strict=True):
            counts |= _sums(kind, stacked[:, chosen])
        return counts

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return the mean and standard deviation of the weights, and the mean of each group.

        A mean near 0 is a closed gate. A group without a frame is left out.
        """
        number, total, squares = (counts[name] for name in _WHOLE)
        mean = total / number
        row = {"gate_mean": mean, "gate_spread": max(squares / number - mean**2, 0.0) ** 0.5}
        for group in (*self._pairs, *FRAME_KINDS):
            if number := counts[f"gate_num_{group}"]:
                row[f"gate_mean_{group}"] = counts[f"gate_sum_{group}"] / number
        return row


def _sums(name: str, values: Tensor) -> dict[str, Tensor]:
    return {
        f"gate_num_{name}": values.new_tensor(values.numel()),
        f"gate_sum_{name}": values.sum(),
    }


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
