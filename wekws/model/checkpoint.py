"""Weights on disk: plain state dicts under WeKWS's keys."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wekws.config import load_config, parse_config
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, read_yaml
from wekws.model.model import KwsModel, ModelConfig


def save_weights(weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict, whole or not at all; the same weights make the same bytes."""
    state = {name: value.detach().cpu() for name, value in weights.items()}
    # Given a path, torch.save would write its (temporary, random) name into the file.
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        torch.save(state, stream)


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict to the CPU.

    Raises: DataError if the file is missing, damaged, or holds anything but named tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path}: not a readable checkpoint: {reason[0]}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path}: holds no plain state dict; expected names and tensors alone")
    return dict(state)


def read_model_config(path: str | os.PathLike[str]) -> ModelConfig:
    """Read the ``model`` section of a configuration file, whatever else it holds."""
    raw = load_config(path)
    if "model" not in raw.content:
        raise ConfigError(f"{path}: has no section `model`")
    return parse_config(ModelConfig, raw, "model")


def config_beside(checkpoint_path: str | os.PathLike[str]) -> Path:
    """Return the ``config.yaml`` in a checkpoint's directory.

    Raises: ConfigError if there is none.
    """
    path = Path(checkpoint_path).parent / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name the checkpoint's configuration yourself")
    return path


def load_model(
    checkpoint_path: str | os.PathLike[str], config_path: str | os.PathLike[str] | None = None
) -> KwsModel:
    """Build the model of a checkpoint and fill it, strictly; in eval mode, on the CPU.

    config_path: None is the ``config.yaml`` beside the checkpoint. CMVN comes from the checkpoint;
    the file that the config names need not exist any more. A config without ``output_dim``
    (WeKWS's own) takes it from the checkpoint. An epoch of a student that had yet to grow has
    as many blocks as ``num_layers`` in the YAML beside it says.
    Raises: DataError or ConfigError, see ``load_weights`` here and of the model.
    """
    state = load_weights(checkpoint_path)
    config = read_model_config(config_path or config_beside(checkpoint_path))
    num_layers = _early_depth(Path(checkpoint_path).with_suffix(".yaml"))
    if num_layers is not None:
        config = config.with_num_layers(num_layers)
    head = state.get("backbone.out_linear2.linear.weight")
    if config.output_dim == 0 and head is not None:
        config = config.with_output_dim(len(head))
    return model_of(config, state, source=str(checkpoint_path))


def _early_depth(path: Path) -> int | None:
    info = read_yaml(path) if path.is_file() else None
    return info.get("num_layers") if isinstance(info, dict) else None


def model_of(config: ModelConfig, state: Mapping[str, Tensor], *, source: str) -> KwsModel:
    """Build a model and fill it, strictly, CMVN from the state; in eval mode, on the CPU.

    source: where the state comes from, for messages.
    Raises: DataError, see ``load_weights`` of the model.
    """
    cmvn = None
    if config.cmvn.cmvn_file or "global_cmvn.mean" in state:
        cmvn = (torch.zeros(config.input_dim), torch.ones(config.input_dim))
    model = KwsModel(config, cmvn)
    model.load_weights(state, source=source)
    return model.eval()
