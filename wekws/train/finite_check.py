"""A check that loss and gradient are finite, for which no step waits for the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.dataset.batch import Batch
from wekws.distill.method import LossValue
from wekws.errors import DataError


@dataclass(frozen=True)
class Step:
    """A step and its data, for the message."""

    epoch: int
    """Number of the epoch, from 0."""
    index: int
    """Number of the step in its epoch, from 0."""
    batch: Batch
    """This process's share of its utterances."""
    rate: float
    """Its learning rate."""


class FiniteCheck:
    """Checks each step when the next one has been handed to the device.

    To read a result at once would let a GPU run idle until the next step reaches it. The step after
    a bad one is lost, as the run is: the epochs that were saved before stay as they are.
    """

    def __init__(self) -> None:
        """Begin with nothing to check."""
        self._pending: tuple[Tensor, torch.Event | None, Step] | None = None

    def add(self, loss: LossValue, norm: Tensor, step: Step) -> None:
        """Note a step to check, and check the one before.

        norm: of the whole gradient.
        Raises: DataError, see ``require``.
        """
        before, on_device = self._pending, torch.isfinite(norm) & torch.isfinite(loss.total)
        is_finite, event = on_device.to("cpu", non_blocking=True), None
        if on_device.device.type != "cpu":
            event = torch.Event(on_device.device)
            event.record()
        self._pending = (is_finite, event, step)
        _require(before)

    def require(self) -> None:
        """Check the last step.

        Raises: DataError naming step and utterances, with the likely cause.
        """
        pending, self._pending = self._pending, None
        _require(pending)


def _require(pending: tuple[Tensor, torch.Event | None, Step] | None) -> None:
    if pending is None:
        return
    is_finite, event, step = pending
    if event is not None:
        event.synchronize()
    if is_finite:
        return
    where = f"epoch {step.epoch}, step {step.index}: the loss or its gradient is not finite; "
    keys = ", ".join(step.batch.keys)
    if not torch.isfinite(step.batch.feats).all():
        raise DataError(f"{where}neither are the features of its utterances: {keys}")
    raise DataError(
        f"{where}the features are, so training has diverged at a learning rate of {step.rate:g}: "
        "lower optim_conf.lr, raise scheduler_conf.warmup_epochs, or lower "
        f"training_config.grad_clip. No epoch after it was saved. Utterances of the step: {keys}"
    )
