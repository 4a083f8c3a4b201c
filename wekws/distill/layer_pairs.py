"""Pairs of layers of student and teacher, with adapters where their widths differ.

Axes: N valid frames, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.distill.taps import tap_widths
from wekws.errors import ConfigError
from wekws.model.fsmn import block_path
from wekws.model.model import KwsModel

PairingRule = Literal["ends", "even", "spread", "skip", "groups"]
BlockChoice = Literal["all", "first_half", "second_half", "odd", "even"]


@dataclass(frozen=True, kw_only=True)
class HiddenPair:
    """One item of ``distill_conf.hidden.pairs``."""

    student: str | int
    """Module path, such as ``backbone.fsmn.0.2``, the output of a block, or the block's number,
    from 0."""
    teacher: str | int | tuple[str, ...]
    """Module path or number of a block; or several paths of one width, whose mean is the target."""
    weight: float = 1.0
    """Weight relative to the other pairs, above 0."""

    def __post_init__(self) -> None:
        """Refuse pairs without a target or weight."""
        if not self.weight > 0.0 or self.teacher in ("", ()):
            raise ConfigError("expected a weight above 0 and at least one teacher module")
        if any(isinstance(layer, int) and layer < 0 for layer in (self.student, self.teacher)):
            raise ConfigError(
                f"student {self.student}, teacher {self.teacher}: blocks are numbered from 0"
            )

    @property
    def student_path(self) -> str:
        """The student's module path."""
        return block_path(self.student) if isinstance(self.student, int) else self.student

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teacher's paths, one or several."""
        if isinstance(self.teacher, int):
            return (block_path(self.teacher),)
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    def __str__(self) -> str:
        """Return the pair as the log shows it."""
        return f"{self.student_path} - {' + '.join(self.teachers)}"


def choose_blocks(blocks: BlockChoice | tuple[int, ...], num: int) -> list[int]:
    """Return the indices, from 0, of the chosen ones of ``num`` blocks.

    Raises: ConfigError for a number of a block that does not exist, or one that repeats.
    """
    if not isinstance(blocks, str):
        if len(set(blocks)) < len(blocks) or not all(0 <= block < num for block in blocks):
            raise ConfigError(
                f"hidden.blocks: found {list(blocks)}; expected distinct numbers from 0 to "
                f"{num - 1}, the blocks of the student"
            )
        return sorted(blocks)
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


def pair_blocks(rule: PairingRule, num_student: int, num_teacher: int) -> list[tuple[int, ...]]:
    """Return for each block of the student the blocks of the teacher it imitates, from 0.

    rule: ``ends`` counts the first half from the first block on and the second half from the last
    one back; ``even`` spreads evenly, first to first and last to last, rounded to the nearest
    (4 over 12: 0, 4, 7, 11); ``spread`` likewise with equal steps (0, 4, 8, 11); ``skip`` takes
    every k-th block, evenly strided; ``groups`` takes the mean of neighbours, so that all are used.

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
    if rule == "spread":
        step = num_teacher // last_student
        places = [min(i * step, last_teacher) for i in range(num_student)]
        return [(place,) for place in [*places[:-1], last_teacher]]
    if rule == "skip":
        return [(edge - 1,) for edge in edges[1:]]
    return [tuple(range(*pair)) for pair in zip(edges, edges[1:], strict=False)]


@dataclass(frozen=True)
class AlignedPair:
    """Features of one pair of layers, of one width."""

    weight: float
    """Weight relative to the other pairs."""
    student: Tensor
    """(N, C), after the adapter."""
    teacher: Tensor
    """(N, C)."""


class LayerPairs(nn.Module):
    """Paired layers, with adapters from the student's width to the teacher's.

    An adapter (linear: a 1x1 convolution) exists where widths differ and is trained with the
    student. It starts as the identity, cut or padded with zeros: the channels of a transplanted
    student are some of the teacher's. No random number is used for it.
    """

    def __init__(self, pairs: Sequence[HiddenPair], student: KwsModel, teacher: KwsModel) -> None:
        """Pair the layers of two models.

        Raises: ConfigError if a model has no layer of a path, or the teacher's layers of one pair
        differ in width.
        """
        super().__init__()
        self.pairs = tuple(pairs)
        self.names = pair_names(self.pairs)
        self.student_paths = tuple(dict.fromkeys(pair.student_path for pair in pairs))
        self.teacher_paths = tuple(dict.fromkeys(p for pair in pairs for p in pair.teachers))
        student_widths = tap_widths(student, self.student_paths, "student")
        teacher_widths = tap_widths(teacher, self.teacher_paths, "teacher")
        self.widths = tuple(_one_width(pair, teacher_widths) for pair in pairs)
        self.adapters = nn.ModuleList(
            _adapter(student_widths[pair.student_path], width)
            for pair, width in zip(pairs, self.widths, strict=True)
        )

    def align(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> list[AlignedPair]:
        """Return the features of each pair, the student's as wide as the teacher's.

        student, teacher: module path -> (N, C).
        """
        result = []
        for pair, adapter in zip(self.pairs, self.adapters, strict=True):
            target = torch.stack([teacher[path].float() for path in pair.teachers]).mean(dim=0)
            result.append(
                AlignedPair(pair.weight, adapter(student[pair.student_path].float()), target)
            )
        return result


def pair_names(pairs: Sequence[HiddenPair]) -> tuple[str, ...]:
    """Return a short name for each pair: the student's layer, ``fsmn.0`` for its first block.

    Pairs with the same layer of the student get a number besides.
    """
    names = []
    for pair in pairs:
        parts = pair.student_path.removeprefix("backbone.").split(".")
        names.append(".".join(parts[:2]) if parts[0] == "fsmn" else ".".join(parts))
    return tuple(
        f"{name}-{index}" if names.count(name) > 1 else name for index, name in enumerate(names)
    )


def _one_width(pair: HiddenPair, widths: Mapping[str, int]) -> int:
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
