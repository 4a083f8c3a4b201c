"""Hooks: what a method does at fixed places of the training loop, outside the loss."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from wekws.distill.objective import Objective
from wekws.distill.transplant import Sample
from wekws.model.model import KwsModel
from wekws.runlog.fields import Kind


class TrainingRun(Protocol):
    """The parts of a training run that a hook may use."""

    @property
    def model(self) -> KwsModel:
        """The student (or, without a teacher, the model) in training."""

    @property
    def kept_model(self) -> KwsModel:
        """The model that cv passes score and checkpoints hold; usually ``model`` itself."""

    @property
    def teacher(self) -> KwsModel | None:
        """The frozen teacher; None in plain CTC training."""

    @property
    def objective(self) -> Objective:
        """The loss."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The student's optimiser."""

    @property
    def num_steps_done(self) -> int:
        """Optimiser steps since the start of the run."""

    @property
    def num_utterances(self) -> int:
        """Utterances of the training set."""

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the whole learning-rate schedule by ``scale`` from here on."""

    def update_optimizer_groups(self) -> None:
        """Let the optimiser train parameters that the model has gained; others keep their state."""

    def cv_loss(self, model: KwsModel) -> float:
        """Return a model's CTC loss on the cv set, nats per utterance."""

    def draw_sample(self, model: KwsModel, num_batches: int) -> Sample:
        """Return a sample of the training set, normalised as ``model`` (on the CPU) does."""

    def copy_from_first(self, model: nn.Module) -> None:
        """Give every process the weights of the first one."""

    def max_over_peers(self, values: torch.Tensor) -> torch.Tensor:
        """Return the elementwise maximum of ``values`` over all processes."""

    def repeat_utterances(self, indices: torch.Tensor) -> None:
        """Let these training utterances occur once more in each epoch from here on; (M,)."""

    def log(self, kind: Kind, row: Mapping[str, Any]) -> None:
        """Write a row of ``metrics.jsonl``."""


class TrainingHook:
    """Base of all hooks; every place does nothing unless it is overridden.

    All that a hook does at an epoch's start follows from the epoch, the weights and its own state,
    so that a resumed run continues as it was.
    """

    name: str = ""
    """Key of the hook's state in a checkpoint."""

    def kept_model(self) -> KwsModel | None:
        """Return a model to score and save in place of the one in training; None: no other."""
        return None

    def before_training(self, run: TrainingRun) -> None:
        """Called once in a run's life, before its first step."""

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Called before each epoch."""

    def after_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Called after the last step of each epoch, in all processes."""

    def after_step(self, run: TrainingRun) -> None:
        """Called after each optimiser step."""

    def epoch_notes(self, epoch: int) -> dict[str, str | int]:
        """Return fields for the row and the YAML of an epoch."""
        return {}

    def state(self, run: TrainingRun) -> dict[str, Any]:
        """Return what a resume needs; empty: nothing."""
        return {}

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``."""
