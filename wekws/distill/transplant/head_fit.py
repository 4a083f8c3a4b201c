"""Fit an output layer to posteriors: softmax regression. Axes: N frames, I inputs, V tokens."""

import torch
from torch import Tensor

from wekws.distill.transplant.fit import fit_affine

RIDGE = 1e-3


def fit_softmax(inputs: Tensor, logits: Tensor, *, steps: int = 40) -> tuple[Tensor, Tensor]:
    """Return (V, I) weights and (V,) bias that bring KL(teacher || student) near its least.

    inputs: (N, I). logits: (N, V), the teacher's. Starts from least squares to the logits; then
    steps with the bound of the Hessian that holds everywhere, ``(I - 11^T / V) / 2`` times the
    inputs' second moments (Boehning 1992, "Multinomial logistic regression algorithm"), with
    Nesterov's momentum. The problem is convex: no step size to choose, nothing random.
    """
    ones = inputs.new_ones(len(inputs), 1)
    weight, bias = fit_affine(inputs, logits - logits.mean(dim=1, keepdim=True))
    solution = torch.cat([weight, bias.unsqueeze(1)], dim=1).T
    seen = torch.cat([inputs, ones], dim=1)
    moments = (seen.T @ seen / len(seen)).double()
    moments.diagonal().add_(RIDGE * moments.diagonal().mean())
    inverse = torch.linalg.inv(moments).to(inputs.dtype)
    posteriors = logits.softmax(dim=-1)
    ahead, momentum = solution, 1.0
    for _ in range(steps):
        slope = seen.T @ ((seen @ ahead).softmax(dim=-1) - posteriors) / len(seen)
        following = ahead - 2.0 * inverse @ slope
        grown = (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5) / 2.0
        ahead = following + (momentum - 1.0) / grown * (following - solution)
        solution, momentum = following, grown
    return solution[:-1].T.contiguous(), solution[-1]
