"""Distance between inner features of student and teacher.

Axes: N valid frames, C channels.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.distill import gate as gates
from wekws.distill.gate import Gate, GateConfig
from wekws.distill.layer_pairs import (
    AlignedPair,
    BlockChoice,
    HiddenPair,
    PairingRule,
    choose_blocks,
    pair_blocks,
)
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.errors import ConfigError
from wekws.model.fsmn import block_path


@dataclass(frozen=True, kw_only=True)
class HiddenConfig(MethodConfig):
    """Section ``distill_conf.hidden``: features of inner layers."""

    weight: Scheduled = 0.0
    """Weight within distillation; 0: off."""
    distance: Literal["mse", "normalised_mse", "cosine"] = "mse"
    """``mse`` over channels; ``normalised_mse``: mse of frames normalised to mean 0 and deviation 1
    over their channels, so that the scale of a layer does not matter; ``cosine``: 1 - cos."""
    rule: PairingRule = "ends"
    """Rule that pairs each block of the student with one of the teacher, see ``pair_blocks``."""
    blocks: BlockChoice | tuple[int, ...] = "all"
    """Blocks of the student that take part; odd and even count from 1. Or their numbers, from 0 as
    in module paths, such as [1, 3]."""
    block_weights: tuple[float, ...] = ()
    """One weight per block that takes part, in order; empty: equal weights."""
    pairs: tuple[HiddenPair, ...] = ()
    """Pairs by module path or block number, instead of rule, blocks and block_weights."""
    gate: GateConfig = field(default_factory=GateConfig)
    """A learnt weight on each distance."""

    term_groups = {"hidden": "feature", "gate": "feature"}
    health_rules = gates.HEALTH_RULES

    def __post_init__(self) -> None:
        """Refuse weights that mean nothing, and two ways of naming the layers."""
        checked_schedule("weight", self.weight, 0.0)
        if any(not weight > 0.0 for weight in self.block_weights):
            raise ConfigError("block_weights: expected above 0; leave blocks out with `blocks`")
        chosen = (self.rule, self.blocks, self.block_weights)
        if self.pairs and chosen != ("ends", "all", ()):
            raise ConfigError("pairs: given beside rule, blocks or block_weights; expected one way")
        if self.gate.is_used and self.gate.per == "channel" and self.distance == "cosine":
            raise ConfigError("gate.per: a single channel has no cosine; use frame")

    @property
    def is_used(self) -> bool:
        """Whether the distance ever has a weight."""
        return is_used(self.weight)

    def pairs_for(self, num_student: int, num_teacher: int) -> tuple[HiddenPair, ...]:
        """Return the pairs for models of so many blocks.

        Raises: ConfigError if nothing is paired, or block_weights are too few or too many.
        """
        if self.pairs:
            return self.pairs
        chosen = choose_blocks(self.blocks, num_student)
        weights = self.block_weights or (1.0,) * len(chosen)
        if not chosen or len(weights) != len(chosen):
            raise ConfigError(
                f"hidden: blocks {self.blocks} of {num_student} are {len(chosen)}, block_weights "
                f"{len(weights)}; expected as many, and at least 1"
            )
        partners = pair_blocks(self.rule, num_student, num_teacher)
        return tuple(
            HiddenPair(
                student=block_path(i), teacher=tuple(map(block_path, partners[i])), weight=weight
            )
            for i, weight in zip(chosen, weights, strict=True)
        )

    def build(self, context: MethodContext) -> Method | None:
        """Return the method; None where it is off or nothing is distilled."""
        if not (self.is_used and context.is_distilling):
            return None
        labels = context.label_set
        tokens = {token for ids in labels.keyword_ids for token in ids} if labels else set()
        pairs = context.layer_pairs
        return HiddenDistance(self, pairs.widths, pairs.names, keyword_tokens=tokens - {0, 1})


class HiddenDistance(Method):
    """Term ``hidden``: the distance between paired layers, and ``gate`` where gates weigh it.

    Gates work in training only; in eval mode the distance is the plain one, so that cv passes of
    different epochs compare.
    """

    needs_layer_pairs = True

    def __init__(
        self,
        config: HiddenConfig,
        widths: Sequence[int],
        names: Sequence[str],
        keyword_tokens: Collection[int] = (),
    ) -> None:
        """Take the distance over pairs of these widths, with a gate for each if configured.

        names: of the pairs, for the log. keyword_tokens: see ``GateCounts``.
        """
        super().__init__()
        weight = as_schedule(config.weight)
        self.terms = (Term(name="hidden", group="feature", weight=weight),)
        self._distance = DISTANCES[config.distance]
        self.gates = nn.ModuleList(Gate(w, config.gate) for w in widths if config.gate.is_used)
        if config.gate.is_used:
            self.counts = gates.GateCounts(names, keyword_tokens)
            self.count_names = self.counts.names
            self.terms += (
                Term(
                    name="gate",
                    group="feature",
                    weight=weight,
                    factor=config.gate.openness,
                    has_cv_figure=False,
                ),
            )

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return ``hidden``, the pairs' weighted mean distance summed over the frames.

        With gates in training the distance is the gated one; beside it are ``gate``, the cost of
        low weights, and the counts of ``wekws.distill.gate``.
        """
        if "hidden" not in wanted:
            return {}
        aligned = inputs.aligned
        whole = sum(pair.weight for pair in aligned)
        distances = [self._distance(pair.student, pair.teacher) for pair in aligned]
        if not (self.gates and self.training):
            return {"hidden": _weighted(aligned, distances) / whole}
        weights, costs = zip(
            *(gate(pair.teacher) for gate, pair in zip(self.gates, aligned, strict=True)),
            strict=True,
        )
        gated = [g * distance for g, distance in zip(weights, distances, strict=True)]
        return {
            "hidden": _weighted(aligned, gated) / whole,
            "gate": _weighted(aligned, costs) / whole,
            **self.counts.of(weights, inputs.teacher.logits, inputs.targets.lengths),
        }

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return mean and spread of the gates' weights, if any step used them.

        Beside them ``gate_mean_X``: the mean of a pair of layers (named for the student's layer)
        and of the frames in which the teacher's best token is blank or one of a keyword.
        """
        return self.counts.figures(counts) if counts.get("gate_num") else {}


def _weighted(aligned: Sequence[AlignedPair], values: Sequence[Tensor]) -> Tensor:
    """Return the pairs' weighted sum of values (N, C), each a mean over channels."""
    sums = [p.weight * v.mean(dim=1).sum() for p, v in zip(aligned, values, strict=True)]
    return torch.stack(sums).sum()


def _mse(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


def _normalised_mse(student: Tensor, teacher: Tensor) -> Tensor:
    width = student.shape[1:]
    return _mse(F.layer_norm(student, width), F.layer_norm(teacher, width))


def _cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return 1.0 - F.cosine_similarity(student, teacher, dim=1)[:, None]


# (N, C), or (N, 1) where channels have no distance of their own; a frame's is their mean.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": _mse,
    "normalised_mse": _normalised_mse,
    "cosine": _cosine,
}
