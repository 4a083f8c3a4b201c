"""A transplant in progress: the student's tensors so far, and the choices they follow."""

from typing import NamedTuple

import torch
from torch import Tensor

from wekws.distill.transplant.channels import Channels
from wekws.distill.transplant.rules import TransplantConfig
from wekws.errors import DataError
from wekws.model.cmvn import CMVN_KEYS
from wekws.model.fsmn import (
    BLOCKS,
    IN_LINEAR1,
    OUT_LINEAR1,
    OUT_LINEAR2,
    left_taps_name,
    right_taps_name,
)
from wekws.model.model import KwsModel

# Axes along which source and student have the same meaning index by index, so that no part may be
# left out: spliced features and tokens.
_FIXED_AXES = {
    **dict.fromkeys(CMVN_KEYS, 0),
    f"{IN_LINEAR1}.weight": 1,
    f"{OUT_LINEAR2}.weight": 0,
    f"{OUT_LINEAR2}.bias": 0,
}


class TensorReport(NamedTuple):
    """Origin of one tensor of the student."""

    name: str
    """Name in the student."""
    source_name: str
    """Name in the source."""
    source_shape: tuple[int, ...]
    """Shape in the source."""
    student_shape: tuple[int, ...]
    """Shape in the student."""
    action: str
    """``copied`` whole, ``sliced``, or the rule by which it was then fitted."""


class TransplantState:
    """The student's tensors by name; the student itself changes in ``write``.

    config: the rules. sizes: those of the student. blocks: the source's block for each block of
    the student. channels: the source's channels that are kept. source: state dict of the source.
    shapes, tensors, actions: of each tensor of the student, see ``TensorReport``.
    """

    def __init__(
        self,
        student: KwsModel,
        source: KwsModel,
        *,
        config: TransplantConfig,
        blocks: tuple[int, ...],
        channels: Channels,
    ) -> None:
        """Start with the kept rows and columns of every tensor of the source.

        Of the taps on the past the last ones are kept, of those on the future the first ones:
        the nearest to the present frame. CMVN is copied.
        """
        self.config = config
        self.sizes = student.config.backbone
        self.blocks = blocks
        self.channels = channels
        self.source = source.state_dict()
        self.shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
        self.tensors: dict[str, Tensor] = {}
        self.actions: dict[str, str] = {}
        axes = channels.kept_axes()
        for name, shape in self.shapes.items():
            layer = name.rpartition(".")[0]
            whole = self.source_of(name)
            tensor = whole
            for axis, kept in enumerate(axes.get(layer, ())[: whole.dim()]):
                if kept is not None:
                    tensor = tensor.index_select(axis, kept.to(tensor.device))
            if layer.endswith("conv_left"):
                tensor = tensor[:, :, tensor.shape[2] - shape[2] :]
            elif layer.endswith("conv_right"):
                tensor = tensor[:, :, : shape[2]]
            self.put(name, tensor.clone(), "copied" if tensor.shape == whole.shape else "sliced")

    def source_of(self, name: str) -> Tensor:
        """Return the source's tensor for one of the student's."""
        return self.source[source_name(name, self.blocks)]

    def put(self, name: str, tensor: Tensor, action: str) -> None:
        """Set one tensor, replacing the one that was there."""
        if tensor.shape != self.shapes[name]:
            raise DataError(
                f"{name}: {action} gives {tuple(tensor.shape)}; the student has "
                f"{tuple(self.shapes[name])}"
            )
        self.tensors[name], self.actions[name] = tensor, action

    def put_affine(self, layer: str, weight: Tensor, bias: Tensor, action: str) -> None:
        """Set weight and bias of a layer."""
        self.put(f"{layer}.weight", weight, action)
        self.put(f"{layer}.bias", bias, action)

    def affine(self, layer: str) -> tuple[Tensor, Tensor]:
        """Return the present weight and bias of a layer."""
        return self.tensors[f"{layer}.weight"], self.tensors[f"{layer}.bias"]

    def source_product(self, first: str, second: str) -> tuple[Tensor, Tensor]:
        """Return the affine that two consecutive ones of the source amount to, in float64."""
        weight = self.source[f"{second}.weight"].double()
        bias = weight @ self.source[f"{first}.bias"].double()
        bias = bias + self.source[f"{second}.bias"].double()
        return weight @ self.source[f"{first}.weight"].double(), bias

    def is_copied(self, *names: str) -> bool:
        """Whether tensors (default: all) are unchanged copies of the source's."""
        return all(self.actions[name] == "copied" for name in names or self.shapes)

    def is_affine_copied(self, *layers: str) -> bool:
        """Whether weights and biases of layers are unchanged copies of the source's."""
        return all(self.is_copied(f"{layer}.weight", f"{layer}.bias") for layer in layers)

    @property
    def boundaries(self) -> list[int]:
        """Index of the source's ``linear`` activation that stands for each of the student's."""
        return [self.blocks[0], *(block + 1 for block in self.blocks)]

    @property
    def head(self) -> tuple[str, ...]:
        """Layers after the last block: two, or the single one of a merged head."""
        return (OUT_LINEAR2,) if self.sizes.is_head_merged else (OUT_LINEAR1, OUT_LINEAR2)

    @torch.no_grad()
    def write(self, student: KwsModel) -> list[TensorReport]:
        """Copy the tensors to the student; return a report on each."""
        for name, tensor in student.state_dict().items():
            tensor.copy_(self.tensors[name])
        return [
            TensorReport(
                name=name,
                source_name=source_name(name, self.blocks),
                source_shape=tuple(self.source_of(name).shape),
                student_shape=tuple(shape),
                action=self.actions[name],
            )
            for name, shape in self.shapes.items()
        ]


def source_name(name: str, blocks: tuple[int, ...]) -> str:
    """Return the name of the source's tensor that one of the student's is made from."""
    if not name.startswith(f"{BLOCKS}."):
        return name
    block, rest = name.removeprefix(f"{BLOCKS}.").split(".", 1)
    return f"{BLOCKS}.{blocks[int(block)]}.{rest}"


def require_fit(student: KwsModel, source: KwsModel, blocks: tuple[int, ...]) -> None:
    """Raise DataError naming every tensor of the student that the source cannot fill."""
    problems = _block_problems(student, source, blocks)
    if not problems:
        state, shapes = source.state_dict(), student.state_dict()
        problems = _tap_problems(student, source)
        for name, tensor in shapes.items():
            problems += _shape_problems(name, tensor, state.get(source_name(name, blocks)))
        missing = [name for name in CMVN_KEYS if name in state and name not in shapes]
        problems += [f"{n}: the source normalises features, the student does not" for n in missing]
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(f"cannot initialise the student from the source:\n  {lines}")


def _block_problems(student: KwsModel, source: KwsModel, blocks: tuple[int, ...]) -> list[str]:
    num_student = student.config.backbone.num_layers
    num_source = source.config.backbone.num_layers
    if len(blocks) != num_student:
        return [f"transplant.blocks: {len(blocks)} given, the student has {num_student}"]
    return [
        f"{name}: the source has no block {block} (blocks 0 to {num_source - 1}); see "
        "transplant.blocks"
        for i, block in enumerate(blocks)
        if block >= num_source
        for name in student.state_dict()
        if name.startswith(f"{BLOCKS}.{i}.")
    ]


def _tap_problems(student: KwsModel, source: KwsModel) -> list[str]:
    sizes, source_sizes = student.config.backbone, source.config.backbone
    strides = [(left_taps_name, "left_stride", sizes.left_stride, source_sizes.left_stride)]
    if sizes.right_order:
        strides += [
            (right_taps_name, "right_stride", sizes.right_stride, source_sizes.right_stride)
        ]
    return [
        f"{taps_name(0)}.weight: source {key} {source_stride}, student {stride}, in all blocks; "
        "the taps belong to other frames"
        for taps_name, key, stride, source_stride in strides
        if stride != source_stride
    ]


def _shape_problems(name: str, student: Tensor, source: Tensor | None) -> list[str]:
    """Return the reason why a tensor cannot be filled, if there is one."""
    if source is None:
        return [f"{name}: the source has none"]
    sizes = f"{name}: source {tuple(source.shape)}, student {tuple(student.shape)}"
    if source.dim() != student.dim():
        return [f"{sizes}; expected as many axes"]
    if any(own > there for own, there in zip(student.shape, source.shape, strict=True)):
        return [f"{sizes}; the student's is larger"]
    axis = _FIXED_AXES.get(name)
    if axis is not None and student.shape[axis] != source.shape[axis]:
        is_output = name.startswith(OUT_LINEAR2)
        advice = "same vocabulary (see wekws.bin.surgery)" if is_output else "same input"
        return [f"{sizes}; expected the {advice}"]
    return []
