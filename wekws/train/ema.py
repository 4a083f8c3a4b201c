"""A running average of the weights: what is scored and kept while the raw ones go on training."""

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at ``model`` as it is. decay: what one step leaves of the average, below 1."""
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards ``model`` after its ``step``-th step.

        Early on the average follows faster, by (1 + step) / (10 + step), or it would stay near
        the start for the first 1 / (1 - decay) steps.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)
