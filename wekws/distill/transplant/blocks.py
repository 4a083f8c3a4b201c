"""The blocks between: made up for dropped channels one consumer at a time, or fitted whole."""

import torch
from torch import Tensor

from wekws.distill.transplant.block_fit import Block, fit_block
from wekws.distill.transplant.contexts import Contexts
from wekws.distill.transplant.fit import compensate, fit_affine
from wekws.distill.transplant.graft import IN1, IN2, Graft


def compensate_blocks(graft: Graft) -> None:
    """Make the consumers of each block's kept channels up for the dropped ones."""
    for index in range(len(graft.draft.blocks)):
        shift = _compensate_project(graft, index)
        _compensate_expand(graft, index, shift)


def _compensate_project(graft: Graft, index: int) -> Tensor:
    """Fit one block's projection; return what its memory then lacks, (P,): it has no bias."""
    block, boundary = graft.draft.blocks[index], graft.boundaries[index]
    kept, name = graft.channels.linear[index], f"backbone.fsmn.{index}.0.linear.weight"
    weight = graft.draft.tensors[name]
    if boundary == block and len(kept) == graft.seen.linear[boundary].shape[1]:
        return weight.new_zeros(len(weight))
    target = graft.seen.projected[block][:, graft.channels.memory[index]]
    inputs = graft.seen.linear[boundary][:, kept]
    rule = graft.config.compensation
    weight, lost = compensate(rule, weight, weight.new_zeros(len(weight)), inputs, target)
    graft.draft.put(name, weight, rule)
    return lost * _taps(graft, index).sum(dim=1)


def _compensate_expand(graft: Graft, index: int, shift: Tensor) -> None:
    """Fit one block's affine. shift: (P,) what its memory lacks in the mean, edges aside."""
    block, name = graft.draft.blocks[index], f"backbone.fsmn.{index}.2.linear"
    projected = graft.seen.projected[block][:, graft.channels.memory[index]]
    target = graft.seen.before[block + 1][:, graft.channels.linear[index + 1]]
    weight, bias = graft.affine(name)
    if not graft.draft.is_copied(*_tap_names(graft, index)):
        contexts = Contexts(projected, graft.packing, graft.own)
        inputs = contexts.remember(torch.eye(projected.shape[1]), _taps(graft, index))
        weight, bias = compensate(graft.config.compensation, weight, bias, inputs, target)
    elif not shift.any():
        return
    graft.put(name, weight, bias + weight @ shift, graft.config.compensation)


def fit_blocks(graft: Graft) -> Tensor:
    """Fit every block in turn to the source's pre-activations, on the student's own input.

    Returns: (N, H) what the last block gives.
    """
    (weight1, bias1), (weight2, bias2) = graft.affine(IN1), graft.affine(IN2)
    rows = (graft.sample.rows @ weight1.T + bias1) @ weight2.T + bias2
    for index, block in enumerate(graft.draft.blocks):
        rows = rows.clamp(min=0.0)
        contexts = Contexts(rows, graft.packing, graft.own)
        target = graft.seen.before[block + 1][:, graft.channels.linear[index + 1]]
        fitted = fit_block(_start(graft, index, rows), contexts, target)
        _put_block(graft, index, fitted)
        rows = fitted.run(contexts)
    return rows.clamp(min=0.0)


def _start(graft: Graft, index: int, rows: Tensor) -> Block:
    """Return the sliced block, its projection fitted to the source's on the student's input."""
    target = graft.seen.projected[graft.draft.blocks[index]][:, graft.channels.memory[index]]
    expand, bias = graft.affine(f"backbone.fsmn.{index}.2.linear")
    return Block(fit_affine(rows, target)[0], _taps(graft, index), expand, bias)


def _taps(graft: Graft, index: int) -> Tensor:
    """Return (P, K): the drafted taps of a block, with the identity of the present frame."""
    parts = [graft.draft.tensors[name].flatten(1) for name in _tap_names(graft, index)]
    taps = torch.cat(parts, dim=1)
    taps[:, graft.present] += 1.0
    return taps


def _tap_names(graft: Graft, index: int) -> list[str]:
    names = [f"backbone.fsmn.{index}.1.{conv}.weight" for conv in ("conv_left", "conv_right")]
    return [name for name in names if name in graft.draft.shapes]


def _put_block(graft: Graft, index: int, block: Block) -> None:
    head, action = f"backbone.fsmn.{index}", graft.config.compensation
    taps = block.taps.clone()
    taps[:, graft.present] -= 1.0
    left, right = taps.split([graft.own.left_order, graft.own.right_order], dim=1)
    graft.draft.put(f"{head}.0.linear.weight", block.project, action)
    graft.draft.put(f"{head}.1.conv_left.weight", left[:, None, :, None], action)
    if graft.own.right_order:
        graft.draft.put(f"{head}.1.conv_right.weight", right[:, None, :, None], action)
    graft.put(f"{head}.2.linear", block.expand, block.bias, action)
