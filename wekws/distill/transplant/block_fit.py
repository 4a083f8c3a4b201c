"""Fit one FSMN block to given pre-activations: alternating least squares.

From a block's input to its ReLU, ``u[t] = b + sum_k A (w_k * (P h[t + o_k]))`` is linear in each
of projection P, taps w and affine A when the other two stay: a canonical polyadic decomposition
with data (Carroll and Chang 1970; Harshman 1970). Each is solved in closed form from second
moments of the neighbours, the projection by a few steps of conjugate gradients on its normal
equations. Axes: see ``contexts``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wekws.distill.transplant.contexts import Contexts, Moments
from wekws.distill.transplant.fit import RIDGE, rectified_target


@dataclass(frozen=True)
class Block:
    """project: (P, H). taps: (P, K), that of the present frame with its identity. expand: (O, P).

    bias: (O,).
    """

    project: Tensor
    taps: Tensor
    expand: Tensor
    bias: Tensor

    def run(self, contexts: Contexts) -> Tensor:
        """Return (N, O) pre-activations."""
        return contexts.remember(self.project, self.taps) @ self.expand.T + self.bias


def fit_block(
    start: Block, contexts: Contexts, target: Tensor, *, rounds: int = 8, sweeps: int = 1
) -> Block:
    """Return a block whose ReLU comes close to the target's, from ``start``.

    target: (N, O) pre-activations. rounds: of what the ReLU makes irrelevant being given up
    (see ``rectified_target``); sweeps: over projection, taps and affine in each.
    """
    block = start
    for _ in range(rounds):
        wanted = rectified_target(target, block.run(contexts))
        moments = contexts.moments(wanted)
        for _ in range(sweeps):
            block = _fit_expand(block, moments)
            block = _fit_taps(block, moments)
            block = _fit_project(block, moments)
        block = _fit_expand(block, moments)
    return block


def _whole(project: Tensor, taps: Tensor) -> Tensor:
    """Return (K, H, P): a memory channel as a function of all neighbours."""
    return torch.einsum("pk,ph->khp", taps, project)


def _through(gram: Tensor, whole: Tensor) -> Tensor:
    """(K, H, K, H) and (K, H, P) to (K, H, P)."""
    size = gram.shape[0] * gram.shape[1]
    return (gram.reshape(size, size) @ whole.reshape(size, -1)).view_as(whole)


def _solve(normal: Tensor, right: Tensor) -> Tensor:
    normal = normal.double()
    normal.diagonal().add_(RIDGE * normal.diagonal().mean() + 1e-12)
    return torch.linalg.solve(normal, right.double()).to(right.dtype)


def _fit_expand(block: Block, moments: Moments) -> Block:
    """Solve for affine and bias."""
    whole = _whole(block.project, block.taps)
    seen = _through(moments.gram, whole)
    normal = torch.einsum("khp,khq->pq", whole, seen)
    expand = _solve(normal, torch.einsum("khp,kho->po", whole, moments.crossed)).T
    remembered = torch.einsum("khp,kh->p", whole, moments.sums)
    return replace(
        block, expand=expand, bias=(moments.target_sums - expand @ remembered) / moments.num
    )


def _fit_taps(block: Block, moments: Moments) -> Block:
    """Solve for all taps at once."""
    num_channels, num_taps = block.taps.shape
    weights = block.expand.T @ block.expand
    half = torch.einsum("ph,khlj->pklj", block.project, moments.gram)
    normal = torch.einsum("pklj,qj->pkql", half, block.project) * weights[:, None, :, None]
    size = num_channels * num_taps
    right = torch.einsum("kho,op->khp", moments.crossed, block.expand)
    right = torch.einsum("khp,ph->pk", right, block.project)
    taps = _solve(normal.reshape(size, size), right.reshape(size))
    return replace(block, taps=taps.view(num_channels, num_taps))


def _fit_project(block: Block, moments: Moments, steps: int = 15) -> Block:
    """Improve the projection by conjugate gradients from where it is."""
    weights = block.expand.T @ block.expand
    gram_scale = moments.gram.flatten(0, 1).flatten(1).diagonal().mean()
    ridge = RIDGE * gram_scale * weights.diagonal().mean()

    def normal(project: Tensor) -> Tensor:
        seen = _through(moments.gram, _whole(project, block.taps)) @ weights
        return torch.einsum("khp,pk->ph", seen, block.taps) + ridge * project

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
