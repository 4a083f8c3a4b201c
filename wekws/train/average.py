"""Average the weights of several epochs."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wekws.errors import DataError
from wekws.files import require_not_input
from wekws.model.checkpoint import load_weights, save_weights
from wekws.train.epoch_checkpoint import (
    best_first,
    comparable_epochs,
    epoch_numbers,
    read_epoch_info,
)
from wekws.yaml_files import write_yaml

logger = logging.getLogger(__name__)


def choose_epochs(model_dir: Path, num: int, *, is_best: bool) -> list[int]:
    """Return the last ``num`` epochs, or the ``num`` best by cv_loss, ascending.

    Those of earlier stages, and of a student that had yet to grow to its full depth, do not count.
    Raises: DataError if there are fewer, or ``num`` is below 1.
    """
    there, epochs = epoch_numbers(model_dir), comparable_epochs(model_dir)
    if num < 1 or len(epochs) < num:
        early = len(there) - len(epochs)
        others = f", and {early} of earlier stages or a smaller depth" if early else ""
        raise DataError(
            f"{model_dir}: holds {len(epochs)} epoch checkpoints (N.pt with N.yaml){others}; "
            f"asked to average {num}; train longer or ask for fewer"
        )
    return sorted(best_first(model_dir)[:num]) if is_best else epochs[-num:]


def average_states(states: Sequence[dict[str, Tensor]], names: Sequence[str]) -> dict[str, Tensor]:
    """Return the mean of state dicts, oldest first.

    Floating tensors are averaged in float64 and keep their type; others (counters) are the
    newest's. names: where each came from, for messages.
    Raises: DataError if keys or shapes differ.
    """
    newest = states[-1]
    for state, name in zip(states, names, strict=True):
        _require_same_tensors(state, name, newest, names[-1])
    return {
        key: torch.stack([state[key].double() for state in states]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in newest.items()
    }


def _require_same_tensors(
    state: dict[str, Tensor], name: str, other: dict[str, Tensor], other_name: str
) -> None:
    different = sorted(
        key
        for key in state.keys() | other.keys()
        if key not in state or key not in other or state[key].shape != other[key].shape
    )
    if different:
        raise DataError(
            f"{name} and {other_name} are of different models: {', '.join(different[:5])}"
            + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        )


def average_checkpoints(model_dir: Path, epochs: Sequence[int]) -> dict[str, Tensor]:
    """Return the mean of the given epochs' weights."""
    paths = [model_dir / f"{epoch}.pt" for epoch in epochs]
    return average_states([load_weights(path) for path in paths], [str(path) for path in paths])


def average_model(
    model_dir: Path, num: int, *, is_best: bool = True, checkpoint: Path | None = None
) -> Path:
    """Average ``num`` epochs of a run; write the checkpoint, and a YAML that names the epochs.

    is_best: the best epochs by cv_loss; False: the last ones.
    checkpoint: file to write; None: ``avg_NUM.pt`` in ``model_dir``.
    Returns: the file that was written.
    Raises: DataError if there are fewer epochs; ConfigError if ``checkpoint`` is one of the run's
    own epochs.
    """
    path = checkpoint or model_dir / f"avg_{num}.pt"
    there = [model_dir / f"{epoch}.pt" for epoch in epoch_numbers(model_dir)]
    require_not_input(path, *there, model_dir / "final.pt")
    epochs = choose_epochs(model_dir, num, is_best=is_best)
    save_weights(average_checkpoints(model_dir, epochs), path)
    losses = {epoch: read_epoch_info(model_dir, epoch)["cv_loss"] for epoch in epochs}
    chosen = "best by cv_loss" if is_best else "last"
    content = {"averaged_epochs": epochs, "chosen": chosen, "cv_loss_of_epochs": losses}
    write_yaml(path.with_suffix(".yaml"), content)
    logger.info("%s: mean of epochs %s (%s)", path, ", ".join(map(str, epochs)), chosen)
    return path
