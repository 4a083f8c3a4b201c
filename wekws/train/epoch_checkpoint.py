"""Epoch checkpoints as WeKWS has them, and beside them what a resume needs.

``N.pt`` is a plain state dict; ``N.yaml`` holds the figures at the end of the epoch (and
``num_layers``, for a student that has yet to grow to the depth in config.yaml). ``train_state.pt``
holds optimiser and schedule; it is written last, so that it never refers to weights that are not
there.
"""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path
from wekws.model.checkpoint import load_weights, read_torch_file, save_weights, write_torch_file
from wekws.model.model import KwsModel
from wekws.yaml_files import read_yaml, write_yaml

logger = logging.getLogger(__name__)

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
    write_torch_file({"epoch": epoch, **state}, model_dir / STATE_NAME)


def save_final(model_dir: Path, epoch: int) -> None:
    """Make ``final.pt`` a copy of the last epoch's, ``best.pt`` one of that of lowest cv_loss."""
    copy_epoch(model_dir, epoch, "final")
    copy_epoch(model_dir, next(iter(best_first(model_dir)), epoch), "best")


def copy_epoch(model_dir: Path, epoch: int, name: str) -> Path:
    """Copy an epoch's weights and YAML to ``name.pt`` and ``name.yaml``; return the weights."""
    for suffix in (".pt", ".yaml"):
        with atomic_path(model_dir / f"{name}{suffix}") as temporary:
            shutil.copyfile(model_dir / f"{epoch}{suffix}", temporary)
    return model_dir / f"{name}.pt"


def read_state(model_dir: Path) -> dict[str, Any] | None:
    """Return the state after the last finished epoch; None if no epoch has finished yet.

    Raises: DataError if the file cannot be read, or is gone although a training has finished.
    """
    path = model_dir / STATE_NAME
    if not path.exists():
        if (model_dir / "final.pt").exists():
            raise DataError(
                f"{path}: no such file, and final.pt, which a training from the beginning would "
                f"overwrite. {_WAY_OUT}"
            )
        return None
    try:
        state = read_torch_file(path)
    except DataError as error:
        raise DataError(f"{error}. {_WAY_OUT}") from error
    if not isinstance(state, dict) or not _STATE_ENTRIES <= state.keys():
        raise DataError(f"{path}: not the state of a training run. {_WAY_OUT}")
    if not isinstance(state["epoch"], int) or not isinstance(state["step"], int):
        raise DataError(f"{path}: not the state of a training run. {_WAY_OUT}")
    return _from_earlier_version(state)


_STATE_ENTRIES = {"epoch", "step", "optimizer", "learning_rate", "objective"}
_WAY_OUT = (
    "The run cannot be resumed; start another --model_dir (run_distill.sh: --name or "
    "--student_name), from its last weights with --checkpoint N.pt if you like"
)


def _from_earlier_version(state: dict[str, Any]) -> dict[str, Any]:
    """Bring a state written by an earlier version into the current form."""
    if "hooks" in state:
        return state
    renamed = {"hidden.adapters.": "layer_pairs.adapters.", "rivals.": "adversarial."}
    objective = {}
    for name, value in state["objective"].items():
        for old, new in renamed.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        objective[name] = value
    if "rival" in state:
        objective["adversarial._extra_state"] = state["rival"]
    hooks = {}
    if "raw_model" in state:
        hooks["raw_model"] = state["raw_model"]
    if state.get("teacher_weights"):
        hooks["teacher_weights"] = {"weights": state["teacher_weights"]}
    kept = ("epoch", "step", "optimizer", "learning_rate")
    return {**{name: state[name] for name in kept}, "objective": objective, "hooks": hooks}


def load_epoch(model_dir: Path, epoch: int, model: KwsModel) -> None:
    """Load an epoch's weights into ``model``.

    Raises: DataError if they are missing, damaged or do not fit.
    """
    path = model_dir / f"{epoch}.pt"
    if not path.exists():
        raise DataError(
            f"{model_dir / STATE_NAME}: refers to {path.name}, which does not exist. {_WAY_OUT}"
        )
    try:
        model.load_weights(load_weights(path), source=str(path))
    except DataError as error:
        raise DataError(f"{error}. {_WAY_OUT}") from error


def unusable_state(model_dir: Path, reason: object) -> DataError:
    """Return the error for a state that can be read but does not fit the run."""
    return DataError(f"{model_dir / STATE_NAME}: does not fit the run: {reason}. {_WAY_OUT}")


def epoch_numbers(model_dir: Path) -> list[int]:
    """Return the epochs that have both weights and YAML, ascending."""
    names = [p.stem for p in model_dir.glob("*.yaml") if p.with_suffix(".pt").exists()]
    return sorted(int(name) for name in names if name.isdigit())


def comparable_epochs(model_dir: Path) -> list[int]:
    """Return the epochs of the last stage at full depth, ascending.

    Epochs of other stages had another loss, those of a student that has yet to grow another
    shape: neither is averaged with, or compared to, the last ones. Weights without a YAML, as an
    interrupted run may leave them, are named in a warning.
    """
    for path in sorted(model_dir.glob("*.pt")):
        if path.stem.isdigit() and not path.with_suffix(".yaml").exists():
            logger.warning("%s: no %s.yaml beside it; the epoch is left out", path, path.stem)
    infos = {epoch: read_epoch_info(model_dir, epoch) for epoch in epoch_numbers(model_dir)}
    grown = [epoch for epoch, info in infos.items() if "num_layers" not in info]
    return [e for e in grown if infos[e].get("stage") == infos[grown[-1]].get("stage")]


def best_first(model_dir: Path) -> list[int]:
    """Return the comparable epochs by cv_loss, the lowest first, of equals the earlier."""
    losses = {e: read_epoch_info(model_dir, e)["cv_loss"] for e in comparable_epochs(model_dir)}
    return sorted(losses, key=lambda epoch: (losses[epoch], epoch))


def read_epoch_info(model_dir: Path, epoch: int) -> dict[str, Any]:
    """Return what ``N.yaml`` says of an epoch.

    Raises: DataError if it lacks the epoch's cv_loss.
    """
    path = model_dir / f"{epoch}.yaml"
    info = read_yaml(path)
    loss = info.get("cv_loss") if isinstance(info, dict) else None
    if not isinstance(loss, int | float) or not math.isfinite(loss):
        raise DataError(
            f"{path}: cv_loss is {loss}; expected the YAML that training writes; delete it to "
            f"leave epoch {epoch} out"
        )
    return info


def require_fresh(model_dir: Path) -> None:
    """Refuse a directory that holds another run's epochs.

    Raises: ConfigError.
    """
    if (model_dir / STATE_NAME).exists() or epoch_numbers(model_dir):
        raise ConfigError(
            f"{model_dir}: holds a run already; continue it with --resume or choose another "
            "--model_dir"
        )
