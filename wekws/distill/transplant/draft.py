"""The student's tensors in the making: what fits what, and an account of each."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from wekws.distill.output_surgery import OUTPUT_LAYER
from wekws.errors import DataError
from wekws.model.model import KwsModel

# Axes along which source and student mean the same thing index by index, or nothing fits:
# spliced features and tokens.
_FIXED_AXES = {
    "global_cmvn.mean": 0,
    "global_cmvn.istd": 0,
    "backbone.in_linear1.linear.weight": 1,
    f"{OUTPUT_LAYER}.weight": 0,
    f"{OUTPUT_LAYER}.bias": 0,
}
_CMVN = ("global_cmvn.mean", "global_cmvn.istd")


class Row(NamedTuple):
    """What became of one tensor of the student.

    action: ``copied`` whole, ``sliced``, or what it was then fitted by.
    """

    name: str
    source_name: str
    source_shape: tuple[int, ...]
    student_shape: tuple[int, ...]
    action: str


class Draft:
    """The student's tensors by name; the student itself changes when all are there."""

    def __init__(self, student: KwsModel, source: KwsModel, blocks: tuple[int, ...]) -> None:
        """Pair every tensor of the student with the source's.

        Raises: DataError naming every tensor that cannot be filled.
        """
        self.source = source.state_dict()
        self.shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
        self.tensors: dict[str, Tensor] = {}
        self.actions: dict[str, str] = {}
        self.blocks = blocks
        problems = _why_not_blocks(student, source, self.blocks)
        if not problems:
            problems = _why_not_taps(student, source)
            for name, shape in self.shapes.items():
                problem = _why_not(name, shape, self.source_name(name), self.source)
                problems += [problem] if problem else []
            missing = [name for name in _CMVN if name in self.source and name not in self.shapes]
            problems += [f"{n}: the source normalises features, the student not" for n in missing]
        if problems:
            lines = "\n  ".join(problems)
            raise DataError(f"cannot start the student from the source:\n  {lines}")

    def source_name(self, name: str) -> str:
        """Return the name of the source's tensor that one of the student's is made from."""
        head = "backbone.fsmn."
        if not name.startswith(head):
            return name
        block, rest = name.removeprefix(head).split(".", 1)
        return f"{head}{_source_block(int(block), self.blocks)}.{rest}"

    def of(self, name: str) -> Tensor:
        """Return the source's tensor for one of the student's."""
        return self.source[self.source_name(name)]

    def put(self, name: str, tensor: Tensor, action: str) -> None:
        """Set one tensor, in place of what was there."""
        if tensor.shape != self.shapes[name]:
            raise DataError(
                f"{name}: {action} gives {tuple(tensor.shape)}; the student has "
                f"{tuple(self.shapes[name])}"
            )
        self.tensors[name], self.actions[name] = tensor, action

    def is_copied(self, *names: str) -> bool:
        """Whether tensors (default: all) are the source's as they are."""
        return all(self.actions[name] == "copied" for name in names or self.shapes)

    @torch.no_grad()
    def write(self, student: KwsModel) -> list[Row]:
        """Fill the student in place; return a row for each of its tensors."""
        own = student.state_dict()
        for name, tensor in own.items():
            tensor.copy_(self.tensors[name])
        return [
            Row(
                name,
                self.source_name(name),
                tuple(self.of(name).shape),
                tuple(shape),
                self.actions[name],
            )
            for name, shape in self.shapes.items()
        ]


def _source_block(block: int, blocks: tuple[int, ...]) -> int:
    return blocks[block] if block < len(blocks) else block


def _why_not_blocks(student: KwsModel, source: KwsModel, blocks: tuple[int, ...]) -> list[str]:
    wanted = student.config.backbone.num_layers
    there = source.config.backbone.num_layers
    if len(blocks) != wanted:
        return [f"transplant.blocks: {len(blocks)} given, the student has {wanted}"]
    return [
        f"{name}: the source has no block {block} (blocks 0 to {there - 1}); see transplant.blocks"
        for i, block in enumerate(blocks)
        if block >= there
        for name in student.state_dict()
        if name.startswith(f"backbone.fsmn.{i}.")
    ]


def _why_not_taps(student: KwsModel, source: KwsModel) -> list[str]:
    own, theirs = student.config.backbone, source.config.backbone
    sides = [("left_stride", "conv_left"), ("right_stride", "conv_right")]
    return [
        f"backbone.fsmn.*.1.{conv}.weight: source {key} {getattr(theirs, key)}, student "
        f"{getattr(own, key)}; taps mean other frames"
        for key, conv in sides
        if getattr(own, key) != getattr(theirs, key) and (conv == "conv_left" or own.right_order)
    ]


def _why_not(
    name: str, student: torch.Size, source_name: str, state: Mapping[str, Tensor]
) -> str | None:
    """Return why a tensor cannot be filled, or None."""
    if source_name not in state:
        return f"{name}: the source has none"
    source = state[source_name].shape
    sizes = f"{name}: source {tuple(source)}, student {tuple(student)}"
    if len(source) != len(student):
        return f"{sizes}; expected as many axes"
    if any(mine > theirs for mine, theirs in zip(student, source, strict=True)):
        return f"{sizes}; the student's is larger"
    axis = _FIXED_AXES.get(name)
    if axis is not None and student[axis] != source[axis]:
        advice = "same vocabulary (see wekws.bin.surgery)" if OUTPUT_LAYER in name else "same input"
        return f"{sizes}; expected the {advice}"
    return None
