"""Inner features of the teacher as targets. Axes: N valid frames, C channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.distill.gate import Gate, GateConfig, add_counts, count_weights
from wekws.distill.schedule import Scheduled, checked_schedule, is_used
from wekws.distill.taps import tap_widths
from wekws.errors import ConfigError
from wekws.model.fsmn import block_path

Rule = Literal["ends", "even", "skip", "groups"]
Blocks = Literal["all", "first_half", "second_half", "odd", "even"]


@dataclass(frozen=True, kw_only=True)
class HiddenPair:
    """One item of ``distill_conf.hidden.pairs``.

    student: module path, such as ``backbone.fsmn.0.2``, a block's output.
    teacher: module path, or several of one width, whose mean is the target.
    weight: against the other pairs, above 0.
    """

    student: str
    teacher: str | tuple[str, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse pairs without a target or weight."""
        if not self.weight > 0.0 or not self.teacher:
            raise ConfigError("expected a weight above 0 and at least one teacher module")

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teacher's paths, be it one or several."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


@dataclass(frozen=True, kw_only=True)
class HiddenConfig:
    """Section ``distill_conf.hidden``: features of inner layers.

    weight: within distillation; 0: off.
    distance: ``mse`` over channels; ``normalised_mse``, of frames brought to mean 0 and deviation
    1 over their channels, so that the scale of a layer does not matter; ``cosine``, 1 - cos.
    rule: which block of the teacher each block of the student imitates. ``ends``: the first half
    is counted from the first block on, the second half from the last one back; ``even``:
    spread evenly, first to first and last to last; ``skip``: every so manyth; ``groups``:
    the mean of several that follow each other, all used.
    blocks: which blocks of the student take part, counted from 1 for odd and even.
    block_weights: one for each of them, in order; empty: all alike.
    pairs: module paths, instead of all these.
    gate: learns which features to imitate.
    """

    weight: Scheduled = 0.0
    distance: Literal["mse", "normalised_mse", "cosine"] = "mse"
    rule: Rule = "ends"
    blocks: Blocks = "all"
    block_weights: tuple[float, ...] = ()
    pairs: tuple[HiddenPair, ...] = ()
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        """Refuse weights that mean nothing, and two ways of saying which layers."""
        checked_schedule("weight", self.weight, 0.0)
        if any(not weight > 0.0 for weight in self.block_weights):
            raise ConfigError("block_weights: expected above 0; leave blocks out with `blocks`")
        chosen = (self.rule, self.blocks, self.block_weights)
        if self.pairs and chosen != ("ends", "all", ()):
            raise ConfigError("pairs: given beside rule, blocks or block_weights; expected one way")
        if self.gate.is_used and self.gate.per == "channel" and self.distance == "cosine":
            raise ConfigError("gate.per: channels have no cosine of their own; take frame")

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


def choose_blocks(blocks: Blocks, num: int) -> list[int]:
    """Return the indices, from 0, of the chosen ones of ``num`` blocks."""
    indices = list(range(num))
    half = (num + 1) // 2
    choices = {
        "all": indices,
        "first_half": indices[:half],
        "second_half": indices[half:],
        "odd": indices[::2],
        "even": indices[1::2],
    }
    return choices[blocks]


def pair_blocks(rule: Rule, num_student: int, num_teacher: int) -> list[tuple[int, ...]]:
    """Return for each block of the student the teacher's that it imitates, counted from 0.

    Raises: ConfigError if the teacher has fewer blocks.
    """
    if num_teacher < num_student:
        raise ConfigError(
            f"{num_student} blocks of the student, {num_teacher} of the teacher: no rule pairs "
            "them; name pairs"
        )
    half, gap = (num_student + 1) // 2, num_teacher - num_student
    last_student, last_teacher = max(1, num_student - 1), num_teacher - 1
    edges = [i * num_teacher // num_student for i in range(num_student + 1)]
    if rule == "ends":
        return [(i if i < half else i + gap,) for i in range(num_student)]
    if rule == "even":
        nearest = (2 * i * last_teacher + last_student for i in range(num_student))
        return [(place // (2 * last_student),) for place in nearest]
    if rule == "skip":
        return [(edge - 1,) for edge in edges[1:]]
    return [tuple(range(*pair)) for pair in zip(edges, edges[1:], strict=False)]


@dataclass(frozen=True)
class Aligned:
    """One pair's features, of one width. student: after its adapter; both (N, C)."""

    weight: float
    student: Tensor
    teacher: Tensor


class HiddenTerm(nn.Module):
    """Distance between paired layers, with adapters from the student's width to the teacher's.

    An adapter (linear: the 1x1 convolution) exists where widths differ and is trained with the
    student. It starts as the identity, cut or padded with zeros: a transplanted student's
    channels are some of the teacher's, and no random number is spent on it. So are gates, which
    weigh the distances in training; in ``eval`` mode they stand open, so that cv passes compare.
    """

    def __init__(self, config: HiddenConfig, student: nn.Module, teacher: nn.Module) -> None:
        """Pair the layers of two models.

        Raises: ConfigError if a path is none of a model's, or several to one differ in width.
        """
        super().__init__()
        numbers = (m.config.backbone.num_layers for m in (student, teacher))
        self.pairs = config.pairs_for(*numbers)
        self.student_paths = tuple(dict.fromkeys(pair.student for pair in self.pairs))
        self.teacher_paths = tuple(dict.fromkeys(p for pair in self.pairs for p in pair.teachers))
        narrow = tap_widths(student, self.student_paths, "student")
        wide = tap_widths(teacher, self.teacher_paths, "teacher")
        self.widths = tuple(_one_width(pair, wide) for pair in self.pairs)
        self._distance = DISTANCES[config.distance]
        self.adapters = nn.ModuleList(
            _adapter(narrow[pair.student], width)
            for pair, width in zip(self.pairs, self.widths, strict=True)
        )
        has_gates = config.gate.is_used and is_used(config.weight)
        self.gates = nn.ModuleList(Gate(w, config.gate) for w in self.widths if has_gates)

    def aligned(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> list[Aligned]:
        """Return each pair's features, the student's as wide as the teacher's.

        student, teacher: module path -> (N, C).
        """
        result = []
        for pair, adapter in zip(self.pairs, self.adapters, strict=True):
            target = torch.stack([teacher[path].float() for path in pair.teachers]).mean(dim=0)
            result.append(Aligned(pair.weight, adapter(student[pair.student].float()), target))
        return result

    def forward(self, aligned: Sequence[Aligned]) -> dict[str, Tensor]:
        """Return ``hidden``, the pairs' weighted mean distance, summed over the frames.

        In training with gates the distance is the gated one, and beside it stand ``gate``, what
        the weights pay for being low, and the counts of ``wekws.distill.gate``.
        """
        whole = sum(pair.weight for pair in aligned)
        distances = [self._distance(pair.student, pair.teacher) for pair in aligned]
        if not (self.gates and self.training):
            return {"hidden": _weighted(aligned, distances) / whole}
        weights, prices = zip(
            *(gate(pair.teacher) for gate, pair in zip(self.gates, aligned, strict=True)),
            strict=True,
        )
        gated = [g * distance for g, distance in zip(weights, distances, strict=True)]
        return {
            "hidden": _weighted(aligned, gated) / whole,
            "gate": _weighted(aligned, prices) / whole,
            **add_counts([count_weights(g) for g in weights]),
        }


def _weighted(aligned: Sequence[Aligned], values: Sequence[Tensor]) -> Tensor:
    """Return the pairs' weighted sum of values (N, C), each a mean over channels."""
    sums = [p.weight * v.mean(dim=1).sum() for p, v in zip(aligned, values, strict=True)]
    return torch.stack(sums).sum()


def _one_width(pair: HiddenPair, widths: dict[str, int]) -> int:
    found = {widths[path] for path in pair.teachers}
    if len(found) > 1:
        raise ConfigError(
            f"teacher: {', '.join(pair.teachers)}: {sorted(found)} channels; expected one width"
        )
    return found.pop()


def _adapter(student_width: int, teacher_width: int) -> nn.Module:
    if student_width == teacher_width:
        return nn.Identity()
    adapter = nn.utils.skip_init(nn.Linear, student_width, teacher_width)
    nn.init.eye_(adapter.weight)
    nn.init.zeros_(adapter.bias)
    return adapter


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
