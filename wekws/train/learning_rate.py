"""The learning rate over training: warm-up, then plateau, cosine or constant."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from wekws.train.train_config import ExperimentConfig, SchedulerConfig


class LearningRate:
    """Sets the optimiser's rate before each step; ``state_dict`` makes it resumable.

    scale: factor on the whole schedule; a parameter group may have its own, ``lr_scale``.
    current: the rate of the last step, without the groups' own factors.
    """

    def __init__(
        self, optimizer: Optimizer, config: SchedulerConfig, max_epoch: int, lr: float
    ) -> None:
        """Schedule ``optimizer`` over ``max_epoch`` epochs; ``lr`` is the rate after warm-up."""
        self._optimizer = optimizer
        self._config = config
        self._max_epoch = max_epoch
        self._lr = lr
        self.scale, self.current = 1.0, lr
        self._plateau = None
        if config.type == "plateau":
            self._plateau = ReduceLROnPlateau(
                optimizer,
                factor=config.factor,
                patience=config.patience,
                threshold=config.threshold,
                min_lr=config.min_lr,
            )

    @classmethod
    def of(cls, optimizer: Optimizer, experiment: ExperimentConfig) -> "LearningRate":
        """Schedule ``optimizer`` as a configuration says."""
        conf, max_epoch = experiment.scheduler_conf, experiment.training_config.max_epoch
        return cls(optimizer, conf, max_epoch, experiment.optim_conf.lr)

    def before_step(self, epochs_done: float) -> float:
        """Set and return the rate of the step that ends ``epochs_done`` epochs into the run."""
        self.current = self.scale * self._rate(epochs_done)
        for group in self._optimizer.param_groups:
            group["lr"] = self.current * group.get("lr_scale", 1.0)
        return self.current

    def after_epoch(self, cv_loss: float) -> None:
        """Tell the plateau schedule how the epoch ended."""
        if self._plateau is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr
            self._plateau.step(cv_loss)
            self._lr = self._optimizer.param_groups[0]["lr"]

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
        plateau = self._plateau.state_dict() if self._plateau is not None else {}
        return {"lr": self._lr, "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        self._lr = state["lr"]
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])
