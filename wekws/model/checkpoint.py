"""Checkpoints: plain state dicts with WeKWS's keys, and the models that they belong to."""

import dataclasses
import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path
from wekws.model.cmvn import CMVN_KEYS
from wekws.model.fsmn import OUT_LINEAR2
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig, config_beside, read_model_config
from wekws.yaml_files import read_yaml


def save_weights(weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict atomically; equal weights give equal bytes."""
    write_torch_file({name: value.detach().cpu() for name, value in weights.items()}, path)


def write_torch_file(content: Any, path: str | os.PathLike[str]) -> None:
    """Write what ``torch.save`` can write, atomically; equal content gives equal bytes.

    Raises: OSError if the disk is full or cannot be written.
    """
    # Given a path, torch.save would store that (temporary, random) name inside the file, and report
    # a full disk as an error of its own.
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        stream.write(buffer.getbuffer())


# Bytes that torch.save did not write can end the unpickler in any of these.
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, zipfile.BadZipFile, pickle.UnpicklingError),
    *(LookupError, ValueError, TypeError, AttributeError),
)


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Read a file that ``torch.save`` wrote, to the CPU; nothing in it is executed.

    Raises: DataError with the reason if the file is missing or cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except _UNREADABLE as error:
        # The text of an UnpicklingError advises to load the file without its protection.
        reason = "" if isinstance(error, pickle.UnpicklingError) else str(error).partition("\n")[0]
        raise DataError(
            f"{path}: not a readable checkpoint (cut off, damaged or another kind of file): "
            f"{type(error).__name__} {reason}".rstrip()
        ) from error


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict to the CPU.

    Raises: DataError if the file is missing, damaged, or holds anything but named tensors of
    finite numbers.
    """
    state = read_torch_file(path)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path}: not a plain state dict; expected only names and tensors")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                f"{path}: {name} holds numbers that are not finite; take another checkpoint"
            )
    return dict(state)


def require_other_folder(out_dir: Path, checkpoint: Path) -> None:
    """Raise ConfigError if ``out_dir`` is the folder of ``checkpoint``."""
    if out_dir.resolve() == checkpoint.parent.resolve():
        raise ConfigError(
            f"{out_dir}: is the folder of {checkpoint}, whose files the output would overwrite; "
            "name another folder"
        )


def load_model(
    checkpoint_path: str | os.PathLike[str], config_path: str | os.PathLike[str] | None = None
) -> KwsModel:
    """Build the model of a checkpoint and load its weights; in eval mode, on the CPU.

    config_path: None: the ``config.yaml`` beside the checkpoint. CMVN comes from the checkpoint;
    the file that the config names need not exist. A config without ``output_dim`` (WeKWS's own)
    takes it from the checkpoint. A checkpoint from before a growing student had all its blocks
    has ``num_layers`` in the YAML beside it (``7.yaml`` for ``7.pt``).
    Raises: DataError or ConfigError, see ``load_weights`` and ``KwsModel.load_weights``.
    """
    state = load_weights(checkpoint_path)
    config = read_model_config(config_path or config_beside(checkpoint_path))
    num_layers = _early_depth(Path(checkpoint_path).with_suffix(".yaml"))
    if num_layers is not None:
        config = config.with_num_layers(num_layers)
    head = state.get(f"{OUT_LINEAR2}.weight")
    if config.output_dim == 0 and head is not None:
        config = config.with_output_dim(len(head))
    return model_of(config, state, source=str(checkpoint_path))


def load_scored_model(
    checkpoint_path: str | os.PathLike[str], config_path: str | os.PathLike[str] | None = None
) -> KwsModel:
    """Load a model for scoring, detectors and export, as `load_model` does.

    Its last layer is divided by the configuration's ``score_temperature``: a plain softmax of its
    logits then gives posteriors at that temperature.
    """
    model = load_model(checkpoint_path, config_path)
    with torch.no_grad():
        for parameter in model.backbone.out_linear2.parameters():
            parameter.div_(model.config.score_temperature)
    model.config = dataclasses.replace(model.config, score_temperature=1.0)
    return model


def _early_depth(path: Path) -> int | None:
    """Return the number of blocks that an epoch's YAML names, None if it names none."""
    info = read_yaml(path) if path.is_file() else None
    return info.get("num_layers") if isinstance(info, dict) else None


def model_of(config: ModelConfig, state: Mapping[str, Tensor], *, source: str) -> KwsModel:
    """Build a model and load a state dict, CMVN included; in eval mode, on the CPU.

    source: origin of the state dict, for error messages.
    Raises: DataError, see ``KwsModel.load_weights``.
    """
    cmvn = None
    if config.cmvn.cmvn_file or CMVN_KEYS[0] in state:
        cmvn = (torch.zeros(config.input_dim), torch.ones(config.input_dim))
    model = KwsModel(config, cmvn)
    model.load_weights(state, source=source)
    return model.eval()
