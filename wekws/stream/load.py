"""Models of any kind by their path."""

import os
from pathlib import Path

from wekws.errors import ConfigError
from wekws.stream.network import SpotterModel
from wekws.stream.onnx_network import ONNX_SUFFIX, load_exported


def load_model(path: str | os.PathLike[str]) -> SpotterModel:
    """Return the detector of a checkpoint (``.pt``) or of an exported file (``.onnx``).

    A checkpoint needs torch, and its configuration, dictionary and keywords beside it. An exported
    file needs onnxruntime and nothing beside it.
    Raises: ConfigError or DataError naming what is missing or does not fit.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".pt":
        try:
            from wekws.stream.torch_network import load_checkpoint
        except ImportError as error:
            raise ConfigError(
                f"{path}: a checkpoint needs {error.name}, which is not installed: pip install "
                f"{error.name}; or export it where it was trained (wekws.bin.export_onnx) and use "
                f"the {ONNX_SUFFIX} file"
            ) from None
        return load_checkpoint(path)
    if suffix == ONNX_SUFFIX:
        return load_exported(path)
    raise ConfigError(f"{path}: expected a checkpoint (.pt) or an exported model (.onnx)")
