"""What a batch is held against, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# What terms listen to: the labels; posteriors, the teacher's or a second view's; the teacher's
# inner features.
TASK_TERMS = ("ctc", "smoothing", "inner_ctc")
LOGIT_TERMS = ("kd", "guide", "inner_kd", "consistency")
FEATURE_TERMS = ("hidden", "gate", "adversarial")


@dataclass(frozen=True)
class Targets:
    """What a batch is held against: labels (B, L), and (B,) of them and of valid frames."""

    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor


@dataclass(frozen=True)
class Loss:
    """One batch's loss. ``total`` carries the gradient, and so does each of ``weighted``.

    terms: unweighted and detached. weighted: their parts of the total.
    counts: sums of what else is worth knowing, which ``Objective.figures`` makes readable.
    """

    total: Tensor
    terms: dict[str, Tensor]
    weighted: dict[str, Tensor]
    counts: dict[str, Tensor] = field(default_factory=dict)


def add_losses(parts: Sequence[Loss], counts: Mapping[str, Tensor] | None = None) -> Loss:
    """Return the loss of a batch from those of its parts, without gradients.

    counts: of the whole batch, to stand beside the parts' own.
    """
    return Loss(
        torch.stack([part.total.detach() for part in parts]).sum(),
        _sums([part.terms for part in parts]),
        _sums([part.weighted for part in parts]),
        {**_sums([part.counts for part in parts]), **(counts or {})},
    )


def _sums(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].detach() for part in parts]).sum() for name in parts[0]}
