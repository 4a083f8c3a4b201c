"""Least squares for one affine. Axes: N frames, I inputs, O outputs."""

import torch
from torch import Tensor

# Of the mean squared input; keeps channels that nearly repeat others from large weights.
RIDGE = 1e-4


def fit_affine(inputs: Tensor, targets: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Return (O, I) weights and (O,) bias with the least squared error on the rows.

    inputs: (N, I). targets: (N, O). ridge: share of the inputs' mean variance; bias is free.
    """
    input_mean, target_mean = inputs.mean(dim=0), targets.mean(dim=0)
    centred = inputs - input_mean
    moments = (centred.T @ centred).double()
    moments.diagonal().add_(ridge * moments.diagonal().mean() + 1e-12)
    crossed = (centred.T @ (targets - target_mean)).double()
    weight = torch.linalg.solve(moments, crossed).T.to(inputs.dtype)
    return weight, target_mean - weight @ input_mean


def rectified_target(target: Tensor, reached: Tensor) -> Tensor:
    """Return what a pre-activation should be so that its ReLU is the target's.

    Where the target is at most 0, any value at most 0 will do: the one reached, if it is one.
    Least squares towards this, again and again, brings down the sum of ``(u - target)^2`` where
    the target is above 0 and of ``max(u, 0)^2`` elsewhere, which is convex: a majorisation.
    """
    return torch.where(target > 0, target, reached.clamp(max=0.0))


def fit_rectified(inputs: Tensor, target: Tensor, rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Return weights and bias of an affine whose ReLU comes close to the target's ReLU."""
    weight, bias = fit_affine(inputs, target)
    for _ in range(rounds - 1):
        reached = inputs @ weight.T + bias
        weight, bias = fit_affine(inputs, rectified_target(target, reached))
    return weight, bias


def compensate(
    rule: str, weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the consumer of the kept channels, made up for those that were dropped.

    weight, bias: (O, I), (O,) as sliced. inputs: (N, I) the kept channels. targets: (N, O) what
    the whole consumer gives. rule: ``none``, ``mean`` (the outputs' mean stays) or
    ``least_squares`` (the outputs stay as close as can be).
    """
    if rule == "none":
        return weight, bias
    if rule == "mean":
        return weight, targets.mean(dim=0) - weight @ inputs.mean(dim=0)
    return fit_affine(inputs, targets)
