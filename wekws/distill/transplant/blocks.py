"""The FSMN blocks: corrected for dropped channels layer by layer, or fitted whole.

From the input of a block to its ReLU, ``u[t] = b + sum_k A (w_k * (P h[t + o_k]))`` is linear in
each of projection P, taps w and affine A while the other two are fixed: a canonical polyadic
decomposition with data (Carroll and Chang 1970; Harshman 1970). Alternating least squares solves
for each in closed form from second moments of the tap windows; the projection takes a few steps of
conjugate gradients on its normal equations. Axes: see ``tap_windows``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wekws.distill.transplant.least_squares import RIDGE, compensate, fit_affine, rectified_target
from wekws.distill.transplant.sample import SourceData
from wekws.distill.transplant.state import TransplantState
from wekws.distill.transplant.tap_windows import TapWindows, WindowMoments, tap_offsets
from wekws.model.fsmn import (
    IN_LINEAR1,
    IN_LINEAR2,
    expansion_name,
    left_taps_name,
    projection_name,
    right_taps_name,
)


def compensate_blocks(state: TransplantState, data: SourceData) -> None:
    """Correct the layers of every block that read kept channels for the dropped ones."""
    for index in range(len(state.blocks)):
        lost = _compensate_projection(state, data, index)
        _compensate_expansion(state, data, index, lost)


def _compensate_projection(state: TransplantState, data: SourceData, index: int) -> Tensor:
    """Fit one projection; return the mean that its memory then lacks, (P,), as it has no bias."""
    block, boundary = state.blocks[index], state.boundaries[index]
    kept, name = state.channels.linear[index], f"{projection_name(index)}.weight"
    weight = state.tensors[name]
    values = data.activations.linear[boundary]
    if boundary == block and len(kept) == values.shape[1]:
        return weight.new_zeros(len(weight))
    target = data.activations.projected[block][:, state.channels.memory[index]]
    rule = state.config.compensation
    weight, lost = compensate(rule, weight, weight.new_zeros(len(weight)), values[:, kept], target)
    state.put(name, weight, rule)
    return lost * _taps(state, index).sum(dim=1)


def _compensate_expansion(
    state: TransplantState, data: SourceData, index: int, lost: Tensor
) -> None:
    """Fit one expansion. lost: (P,) mean that its input lacks, except at the utterances' edges."""
    block, name = state.blocks[index], expansion_name(index)
    projected = data.activations.projected[block][:, state.channels.memory[index]]
    target = data.activations.before[block + 1][:, state.channels.linear[index + 1]]
    weight, bias = state.affine(name)
    if not state.is_copied(*_tap_names(state, index)):
        windows = TapWindows(projected, data.packing, state.sizes)
        inputs = windows.run_memory(torch.eye(projected.shape[1]), _taps(state, index))
        weight, bias = compensate(state.config.compensation, weight, bias, inputs, target)
    elif not lost.any():
        return
    state.put_affine(name, weight, bias + weight @ lost, state.config.compensation)


def fit_blocks(state: TransplantState, data: SourceData) -> Tensor:
    """Fit every block in turn to the source's pre-activations, on the student's own input.

    Returns: (N, H) output of the last block.
    """
    (weight1, bias1), (weight2, bias2) = state.affine(IN_LINEAR1), state.affine(IN_LINEAR2)
    rows = (data.sample.rows @ weight1.T + bias1) @ weight2.T + bias2
    for index, block in enumerate(state.blocks):
        rows = rows.clamp(min=0.0)
        windows = TapWindows(rows, data.packing, state.sizes)
        target = data.activations.before[block + 1][:, state.channels.linear[index + 1]]
        fitted = fit_block(_sliced_block(state, data, index, rows), windows, target)
        _put_block(state, index, fitted)
        rows = fitted.run(windows)
    return rows.clamp(min=0.0)


def _sliced_block(
    state: TransplantState, data: SourceData, index: int, rows: Tensor
) -> "BlockWeights":
    """Return the sliced block, its projection fitted to the source's on the student's input."""
    target = data.activations.projected[state.blocks[index]][:, state.channels.memory[index]]
    expand, bias = state.affine(expansion_name(index))
    return BlockWeights(fit_affine(rows, target)[0], _taps(state, index), expand, bias)


def _taps(state: TransplantState, index: int) -> Tensor:
    """Return (P, K): the present taps of a block, the identity of the present frame included."""
    parts = [state.tensors[name].flatten(1) for name in _tap_names(state, index)]
    taps = torch.cat(parts, dim=1)
    taps[:, tap_offsets(state.sizes).index(0)] += 1.0
    return taps


def _tap_names(state: TransplantState, index: int) -> list[str]:
    names = [f"{left_taps_name(index)}.weight", f"{right_taps_name(index)}.weight"]
    return [name for name in names if name in state.shapes]


def _put_block(state: TransplantState, index: int, block: "BlockWeights") -> None:
    action, sizes = state.config.compensation, state.sizes
    taps = block.taps.clone()
    taps[:, tap_offsets(sizes).index(0)] -= 1.0
    left, right = taps.split([sizes.left_order, sizes.right_order], dim=1)
    state.put(f"{projection_name(index)}.weight", block.project, action)
    state.put(f"{left_taps_name(index)}.weight", left[:, None, :, None], action)
    if sizes.right_order:
        state.put(f"{right_taps_name(index)}.weight", right[:, None, :, None], action)
    state.put_affine(expansion_name(index), block.expand, block.bias, action)


@dataclass(frozen=True)
class BlockWeights:
    """Weights of one block, its taps in one tensor."""

    project: Tensor
    """(P, H) projection."""
    taps: Tensor
    """(P, K) taps, the identity of the present frame included."""
    expand: Tensor
    """(O, P) weights of the affine."""
    bias: Tensor
    """(O,) bias of the affine."""

    def run(self, windows: TapWindows) -> Tensor:
        """Return (N, O) pre-activations."""
        return windows.run_memory(self.project, self.taps) @ self.expand.T + self.bias


def fit_block(
    start: BlockWeights, windows: TapWindows, target: Tensor, *, rounds: int = 8, sweeps: int = 1
) -> BlockWeights:
    """Return a block whose ReLU output is close to the target's, beginning with ``start``.

    target: (N, O) pre-activations. rounds: updates of the target where the ReLU output is 0 (see
    ``rectified_target``). sweeps: passes over projection, taps and affine in each round.
    """
    block = start
    for _ in range(rounds):
        wanted = rectified_target(target, block.run(windows))
        moments = windows.moments(wanted)
        for _ in range(sweeps):
            block = _fit_expand(block, moments)
            block = _fit_taps(block, moments)
            block = _fit_project(block, moments)
        block = _fit_expand(block, moments)
    return block


def _window_weights(project: Tensor, taps: Tensor) -> Tensor:
    """Return (K, H, P): each memory channel as a linear function of the whole window."""
    return torch.einsum("pk,ph->khp", taps, project)


def _apply_gram(gram: Tensor, weights: Tensor) -> Tensor:
    """Multiply (K, H, K, H) by (K, H, P)."""
    size = gram.shape[0] * gram.shape[1]
    return (gram.reshape(size, size) @ weights.reshape(size, -1)).view_as(weights)


def _solve(normal: Tensor, right: Tensor) -> Tensor:
    normal = normal.double()
    normal.diagonal().add_(RIDGE * normal.diagonal().mean() + 1e-12)
    return torch.linalg.solve(normal, right.double()).to(right.dtype)


def _fit_expand(block: BlockWeights, moments: WindowMoments) -> BlockWeights:
    """Solve for weights and bias of the affine."""
    weights = _window_weights(block.project, block.taps)
    normal = torch.einsum("khp,khq->pq", weights, _apply_gram(moments.gram, weights))
    expand = _solve(normal, torch.einsum("khp,kho->po", weights, moments.crossed)).T
    memory_sums = torch.einsum("khp,kh->p", weights, moments.sums)
    bias = (moments.target_sums - expand @ memory_sums) / moments.num
    return replace(block, expand=expand, bias=bias)


def _fit_taps(block: BlockWeights, moments: WindowMoments) -> BlockWeights:
    """Solve for all taps at once."""
    num_channels, num_taps = block.taps.shape
    metric = block.expand.T @ block.expand
    half = torch.einsum("ph,khlj->pklj", block.project, moments.gram)
    normal = torch.einsum("pklj,qj->pkql", half, block.project) * metric[:, None, :, None]
    size = num_channels * num_taps
    right = torch.einsum("kho,op->khp", moments.crossed, block.expand)
    right = torch.einsum("khp,ph->pk", right, block.project)
    taps = _solve(normal.reshape(size, size), right.reshape(size))
    return replace(block, taps=taps.view(num_channels, num_taps))


def _fit_project(block: BlockWeights, moments: WindowMoments, steps: int = 15) -> BlockWeights:
    """Improve the projection by a few steps of conjugate gradients."""
    metric = block.expand.T @ block.expand
    gram_scale = moments.gram.flatten(0, 1).flatten(1).diagonal().mean()
    ridge = RIDGE * gram_scale * metric.diagonal().mean()

    def normal(project: Tensor) -> Tensor:
        product = _apply_gram(moments.gram, _window_weights(project, block.taps)) @ metric
        return torch.einsum("khp,pk->ph", product, block.taps) + ridge * project

    right = torch.einsum("kho,op->khp", moments.crossed, block.expand)
    right = torch.einsum("khp,pk->ph", right, block.taps)
    return replace(block, project=_conjugate_gradients(normal, right, block.project, steps))


def _conjugate_gradients(
    normal: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, steps: int
) -> Tensor:
    """Return an approximate solution of ``normal(x) = right``; normal is positive definite."""
    x = start
    residual = right - normal(x)
    direction, size = residual, residual.square().sum()
    smallest = 1e-12 * right.square().sum()
    for _ in range(steps):
        if size <= smallest:
            break
        moved = normal(direction)
        step = size / (direction * moved).sum()
        x, residual = x + step * direction, residual - step * moved
        before, size = size, residual.square().sum()
        direction = residual + (size / before) * direction
    return x
