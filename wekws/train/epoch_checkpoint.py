"""Epoch checkpoints as WeKWS has them, and beside them what a resume needs.

``N.pt`` is a plain state dict, ``N.yaml`` says how the epoch ended (and ``num_layers``, of a
student that has yet to grow to the depth in config.yaml), ``train_state.pt`` (written last, so
that it never speaks of weights that are not there) holds optimiser and schedule.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, read_yaml, write_yaml
from wekws.model.checkpoint import load_weights, save_weights

STATE_NAME = "train_state.pt"


def save_epoch(
    model_dir: Path, epoch: int, model: nn.Module, info: dict[str, Any], state: dict[str, Any]
) -> None:
    """Write ``epoch``'s weights, its YAML and the state to go on from.

    info: what N.yaml says beside the epoch: lr, cv_loss and further figures.
    state: optimiser and schedule state dicts.
    """
    save_weights(model.state_dict(), model_dir / f"{epoch}.pt")
    write_yaml(model_dir / f"{epoch}.yaml", {"epoch": epoch, **info})
    with atomic_path(model_dir / STATE_NAME) as temporary:
        torch.save({"epoch": epoch, **state}, temporary)


def save_final(model_dir: Path, epoch: int) -> None:
    """Make ``final.pt`` (and ``final.yaml``) a copy of the last epoch's."""
    for suffix in (".pt", ".yaml"):
        with atomic_path(model_dir / f"final{suffix}") as temporary:
            shutil.copyfile(model_dir / f"{epoch}{suffix}", temporary)


def load_state(model_dir: Path, model: nn.Module) -> dict[str, Any] | None:
    """Load the last finished epoch's weights into ``model`` and return its state.

    Returns: None if no epoch has finished yet.
    Raises: DataError if the state is there and its weights are not.
    """
    path = model_dir / STATE_NAME
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights_path = model_dir / f"{state['epoch']}.pt"
    if not weights_path.exists():
        raise DataError(f"{path}: speaks of {weights_path.name}, which is missing; start afresh")
    model.load_state_dict(load_weights(weights_path))
    return state


def last_epoch(model_dir: Path) -> int | None:
    """Return the last finished epoch that a resume goes on from; None: there is none yet."""
    path = model_dir / STATE_NAME
    return torch.load(path, weights_only=True)["epoch"] if path.exists() else None


def epoch_numbers(model_dir: Path) -> list[int]:
    """Return the epochs that have both weights and YAML, ascending."""
    names = [p.stem for p in model_dir.glob("*.yaml") if p.with_suffix(".pt").exists()]
    return sorted(int(name) for name in names if name.isdigit())


def read_epoch_info(model_dir: Path, epoch: int) -> dict[str, Any]:
    """Return what ``N.yaml`` says of an epoch.

    Raises: DataError if it lacks the epoch's cv_loss.
    """
    path = model_dir / f"{epoch}.yaml"
    info = read_yaml(path)
    if not isinstance(info, dict) or not isinstance(info.get("cv_loss"), int | float):
        raise DataError(f"{path}: no cv_loss; expected the YAML that training writes")
    return info


def require_fresh(model_dir: Path) -> None:
    """Refuse a directory that holds another run's epochs.

    Raises: ConfigError.
    """
    if (model_dir / STATE_NAME).exists() or epoch_numbers(model_dir):
        raise ConfigError(
            f"{model_dir}: holds a run already; go on with --resume or choose another --model_dir"
        )
