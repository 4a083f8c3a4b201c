"""Two affines with nothing between them, which are one matrix of low rank.

Axes: N frames, I inputs and O outputs of the pair.
"""

import torch
from torch import Tensor

from wekws.distill.transplant.least_squares import compensate, fit_rectified
from wekws.distill.transplant.sample import SourceData
from wekws.distill.transplant.state import TransplantState
from wekws.model.fsmn import IN_LINEAR1, IN_LINEAR2


def factor(matrix: Tensor, width: int, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (first, second) whose product is the best approximation of rank ``width``.

    matrix: (O, I). inputs: (N, I) inputs of the pair, to minimise the error of its outputs,
    ``|| (matrix - second @ first) inputs^T ||``; None: the error of the matrix itself.
    Returns: (width, I) and (O, width), of similar scale. From the rank of the matrix on nothing is
    lost; further rows of the first matrix then read other directions of the input and their
    columns of the second are zero, so that training can use them.
    Source: Eckart and Young 1936; weighted: Izenman 1975, "Reduced-rank regression", theorem 1.
    """
    exact = matrix.double()
    seen = exact if inputs is None else exact @ _root(inputs.double())
    left, values, _ = torch.linalg.svd(seen, full_matrices=False)
    rank = min(width, int((values > 1e-7 * values[0]).sum()))
    left = left[:, :rank]
    rows = left.T @ exact
    scale = rows.norm(dim=1, keepdim=True).sqrt()
    first, second = rows / scale, left * scale.T
    spare = width - rank
    if spare:
        others = torch.linalg.svd(rows, full_matrices=True)[2][rank:]
        repeats = -(-spare // max(len(others), 1))
        others = (others if len(others) else rows / scale.square()).repeat(repeats, 1)[:spare]
        first = torch.cat([first, others * scale.mean()])
        second = torch.cat([second, second.new_zeros(len(second), width - second.shape[1])], dim=1)
        first = first[:width]
    return first.to(matrix.dtype), second.to(matrix.dtype)


def _root(inputs: Tensor) -> Tensor:
    """Return L with L L^T = inputs^T inputs / N, plus a small multiple of the identity."""
    moments = inputs.T @ inputs / len(inputs)
    moments.diagonal().add_(1e-6 * moments.diagonal().mean())
    return torch.linalg.cholesky(moments)


def put_pair(
    state: TransplantState,
    layers: tuple[str, str],
    affine: tuple[Tensor, Tensor],
    inputs: Tensor | None,
    action: str,
) -> None:
    """Set two layers to the factors of one affine, (O, I) and (O,), see ``factor``."""
    matrix, bias = affine
    width = state.shapes[f"{layers[0]}.bias"][0]
    first, second = factor(matrix, width, inputs)
    state.put_affine(layers[0], first.float(), torch.zeros(width), action)
    state.put_affine(layers[1], second.float(), bias.float(), action)


def factor_input(state: TransplantState, inputs: Tensor | None) -> None:
    """Replace the slices of the input affines by the truncated SVD of their product.

    inputs: (N, D) normalised features that weight the SVD; None: not weighted.
    """
    if state.is_affine_copied(IN_LINEAR1, IN_LINEAR2):
        return
    matrix, bias = state.source_product(IN_LINEAR1, IN_LINEAR2)
    kept = state.channels.linear[0]
    affine = (matrix[kept], bias[kept])
    put_pair(state, (IN_LINEAR1, IN_LINEAR2), affine, inputs, state.config.pairs)


def fit_input(state: TransplantState, data: SourceData) -> None:
    """Fit the second input affine to the source's pre-activations, by the compensation rule."""
    if state.is_affine_copied(IN_LINEAR1):
        return
    weight, bias = state.affine(IN_LINEAR1)
    inner = data.sample.rows @ weight.T + bias
    target = data.activations.before[state.boundaries[0]][:, state.channels.linear[0]]
    rule = state.config.compensation
    if rule == "sequential":
        fitted = fit_rectified(inner, target)
    else:
        fitted = compensate(rule, *state.affine(IN_LINEAR2), inner, target)
    state.put_affine(IN_LINEAR2, *fitted, rule)
