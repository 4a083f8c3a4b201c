"""Start a student from slices of a larger model of its family."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from wekws.distill.surgery import OUTPUT_LAYER
from wekws.errors import DataError
from wekws.model.model import KwsModel

# Axes along which teacher and student mean the same thing index by index, or nothing fits:
# spliced features and tokens.
_FIXED_AXES = {
    "global_cmvn.mean": 0,
    "global_cmvn.istd": 0,
    "backbone.in_linear1.linear.weight": 1,
    f"{OUTPUT_LAYER}.weight": 0,
    f"{OUTPUT_LAYER}.bias": 0,
}


class Row(NamedTuple):
    """What became of one tensor of the student. action: ``copied`` whole or ``sliced``."""

    name: str
    teacher_shape: tuple[int, ...]
    student_shape: tuple[int, ...]
    action: str


def transplant_first(student: KwsModel, teacher_state: Mapping[str, Tensor]) -> list[Row]:
    """Fill the student with the first rows and columns of the teacher's tensors, in place.

    Block i takes block i. Of the taps on the past the last stay, of those on the future the
    first: the ones nearest to the present. CMVN is copied.
    Returns: a row for every tensor of the student.
    Raises: DataError naming every tensor that cannot be filled; the student is then unchanged.
    """
    own = student.state_dict()
    problems = [
        problem for name in own if (problem := _why_not(name, own[name], teacher_state.get(name)))
    ]
    for name in ("global_cmvn.mean", "global_cmvn.istd"):
        if name in teacher_state and name not in own:
            problems.append(f"{name}: the teacher normalises its features, the student does not")
    if problems:
        raise DataError("cannot start the student from the teacher:\n  " + "\n  ".join(problems))
    report = []
    with torch.no_grad():
        for name, tensor in own.items():
            source = teacher_state[name]
            tensor.copy_(source[_window(name, source.shape, tensor.shape)])
            action = "copied" if source.shape == tensor.shape else "sliced"
            report.append(Row(name, tuple(source.shape), tuple(tensor.shape), action))
    return report


def _why_not(name: str, student: Tensor, teacher: Tensor | None) -> str | None:
    """Return why a tensor cannot be filled, or None."""
    if teacher is None:
        return f"{name}: the teacher has none"
    sizes = f"{name}: teacher {tuple(teacher.shape)}, student {tuple(student.shape)}"
    if teacher.dim() != student.dim():
        return f"{sizes}; expected as many axes"
    if any(mine > theirs for mine, theirs in zip(student.shape, teacher.shape, strict=True)):
        return f"{sizes}; the student's is larger"
    axis = _FIXED_AXES.get(name)
    if axis is not None and student.shape[axis] != teacher.shape[axis]:
        advice = "same vocabulary (see wekws.bin.surgery)" if OUTPUT_LAYER in name else "same input"
        return f"{sizes}; expected the {advice}"
    return None


def _window(name: str, teacher: torch.Size, student: torch.Size) -> tuple[slice, ...]:
    window = [slice(0, size) for size in student]
    if name.endswith("conv_left.weight"):
        window[2] = slice(teacher[2] - student[2], teacher[2])
    return tuple(window)
