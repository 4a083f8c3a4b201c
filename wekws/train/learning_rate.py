"""The learning rate over training: warm-up, then plateau, cosine or constant."""

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from wekws.train.train_config import SchedulerConfig


class LearningRate:
    """Sets the optimiser's rate before each step; ``state_dict`` makes it resumable."""

    scale: float
    """Factor on the whole schedule; a parameter group may have its own, ``lr_scale``."""
    current: float
    """Rate of the last step, without the groups' own factors."""

    def __init__(
        self, optimizer: Optimizer, config: SchedulerConfig, *, max_epoch: int, lr: float
    ) -> None:
        """Schedule ``optimizer`` over ``max_epoch`` epochs; ``lr`` is the rate after warm-up."""
        self._optimizer, self._config, self._max_epoch = optimizer, config, max_epoch
        self._lr = lr
        self.scale, self.current = 1.0, lr
        # The plateau rule runs on an optimiser of its own, which holds nothing but the rate: the
        # groups of the real one change when the model grows.
        self._plateau_rate = torch.optim.SGD([torch.zeros(1)], lr=lr)
        self._plateau = ReduceLROnPlateau(
            self._plateau_rate,
            factor=config.factor,
            patience=config.patience,
            threshold=config.threshold,
            min_lr=config.min_lr,
        )

    def before_step(self, epochs_done: float) -> float:
        """Set and return the rate of the step that ends ``epochs_done`` epochs into the run."""
        self.current = self.scale * self._rate(epochs_done)
        for group in self._optimizer.param_groups:
            group["lr"] = self.current * group.get("lr_scale", 1.0)
        return self.current

    def after_epoch(self, cv_loss: float) -> None:
        """Let the plateau schedule take note of an epoch's cv_loss."""
        if self._config.type != "plateau":
            return
        self._plateau_rate.param_groups[0]["lr"] = self._lr
        self._plateau.step(cv_loss)
        self._lr = self._plateau_rate.param_groups[0]["lr"]

    def _rate(self, epochs_done: float) -> float:
        warmup, end = self._config.warmup_epochs, self._max_epoch
        if epochs_done < warmup:
            return self._lr * epochs_done / warmup
        if self._config.type != "cosine":
            return self._lr
        share = min(1.0, (epochs_done - warmup) / max(end - warmup, 1e-9))
        low = self._config.min_lr
        return low + (self._lr - low) * 0.5 * (1.0 + math.cos(math.pi * share))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        plateau = self._plateau.state_dict() if self._config.type == "plateau" else {}
        return {"lr": self._lr, "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self._lr = state["lr"]
        if state["plateau"]:
            self._plateau.load_state_dict(state["plateau"])
