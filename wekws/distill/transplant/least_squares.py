"""Least squares for one affine. Axes: N frames, I inputs, O outputs."""

import torch
from torch import Tensor

from wekws.distill.transplant.rules import Compensation

# Relative to the mean squared input. Without it, channels that nearly repeat each other would get
# large weights of opposite sign.
RIDGE = 1e-4


def fit_affine(inputs: Tensor, targets: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Return (O, I) weights and (O,) bias with the least squared error on the rows.

    inputs: (N, I). targets: (N, O). ridge: L2 penalty relative to the mean variance of the inputs;
    the bias is not penalised.
    """
    input_mean, target_mean = inputs.mean(dim=0), targets.mean(dim=0)
    centred = inputs - input_mean
    moments = (centred.T @ centred).double()
    moments.diagonal().add_(ridge * moments.diagonal().mean() + 1e-12)
    crossed = (centred.T @ (targets - target_mean)).double()
    weight = torch.linalg.solve(moments, crossed).T.to(inputs.dtype)
    return weight, target_mean - weight @ input_mean


def rectified_target(target: Tensor, reached: Tensor) -> Tensor:
    """Return pre-activations to fit next so that the ReLU output approaches the target's.

    Where the target is at most 0, every value at most 0 gives the same ReLU output, so the
    reached value, limited to 0, is the target there. Repeated least squares with these targets
    decreases the sum of ``(u - target)^2`` where the target is above 0 and of ``max(u, 0)^2``
    elsewhere, which is convex (majorisation-minimisation).
    """
    return torch.where(target > 0, target, reached.clamp(max=0.0))


def fit_rectified(inputs: Tensor, target: Tensor, rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Return weights and bias of an affine whose ReLU output is close to the target's."""
    weight, bias = fit_affine(inputs, target)
    for _ in range(rounds - 1):
        reached = inputs @ weight.T + bias
        weight, bias = fit_affine(inputs, rectified_target(target, reached))
    return weight, bias


def compensate(
    rule: Compensation, weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return an affine that reads the kept channels, corrected for the dropped ones.

    weight, bias: (O, I), (O,) as sliced. inputs: (N, I) the kept channels. targets: (N, O) output
    of the layer with all channels. rule: ``none``; ``mean``: keeps the mean of the outputs;
    otherwise least squares.
    """
    if rule == "none":
        return weight, bias
    if rule == "mean":
        return weight, targets.mean(dim=0) - weight @ inputs.mean(dim=0)
    return fit_affine(inputs, targets)
