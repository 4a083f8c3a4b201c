"""Exponential moving average of the weights (``training_config.ema_decay``)."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from wekws.distill.hook import TrainingHook, TrainingRun
from wekws.model.model import KwsModel


class WeightAverage(TrainingHook):
    """Keeps a moving average of the weights, which is scored and saved in their place."""

    name = "raw_model"

    def __init__(self, model: KwsModel, decay: float) -> None:
        """Start at ``model`` as it is. decay: share of the average that a step keeps, below 1."""
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    def kept_model(self) -> KwsModel:
        """Return the average."""
        return self.model

    def after_step(self, run: TrainingRun) -> None:
        """Move the average towards the weights."""
        self.update(run.model, run.num_steps_done)

    @torch.no_grad()
    def update(self, model: KwsModel, step: int) -> None:
        """Move towards ``model`` after its ``step``-th step.

        Early on the average follows faster, by (1 + step) / (10 + step), or it would stay near
        the start for the first 1 / (1 - decay) steps.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)

    def state(self, run: TrainingRun) -> dict[str, Any]:
        """Return the weights in training; the average is the epoch's checkpoint."""
        return run.model.state_dict()

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> None:
        """Set the weights in training."""
        run.model.load_state_dict(state)
