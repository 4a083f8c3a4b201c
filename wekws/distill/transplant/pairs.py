"""Two affines with nothing between them are one matrix of low rank."""

import torch
from torch import Tensor


def factor(matrix: Tensor, width: int, fed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (first, second) whose product is the best one of rank ``width``.

    matrix: (O, I). fed: (N, I) what the pair is fed, so that the error is least where it
    matters: ``|| (matrix - second @ first) fed^T ||``; None: the matrices' own difference.
    Returns: (width, I) and (O, width), of like scale. Lossless from the matrix's rank on; what
    is left of ``width`` then reads other directions of the input and is ignored by the second,
    so that training can put it to use.
    Source: Eckart and Young 1936; weighted: Izenman 1975, "Reduced-rank regression", theorem 1.
    """
    exact = matrix.double()
    seen = exact if fed is None else exact @ _root(fed.double())
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


def _root(fed: Tensor) -> Tensor:
    """Return a factor L of the second moments, L L^T = fed^T fed / N and a little more."""
    moments = fed.T @ fed / len(fed)
    moments.diagonal().add_(1e-6 * moments.diagonal().mean())
    return torch.linalg.cholesky(moments)
