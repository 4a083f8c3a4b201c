"""Identity of a scored model: checksum of its file, and temperature of its posteriors."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wekws.files import file_sha256

StrPath = str | os.PathLike[str]

# Entries in the files of scores and thresholds, and their values where older files lack them.
MODEL_IDENTITY: Mapping[str, Any] = {"checkpoint_sha256": None, "score_temperature": 1.0}


def model_identity(model_path: StrPath, config: StrPath | None = None) -> dict[str, Any]:
    """Return ``checkpoint_sha256`` and ``score_temperature`` of a model file.

    config: None: the ``config.yaml`` beside it. Without one, and for an exported file, whose output
    has its temperature already, the temperature is 1.
    """
    path, temperature = Path(model_path), 1.0
    config = config or path.with_name("config.yaml")
    if path.suffix == ".pt" and Path(config).is_file():
        # Here, because the detector of an exported file needs no yaml.
        from wekws.model.model_conf import read_model_config

        temperature = read_model_config(config).score_temperature
    return {"checkpoint_sha256": file_sha256(path), "score_temperature": temperature}


def is_of_model(
    record: Mapping[str, Any], model_path: StrPath, config: StrPath | None = None
) -> bool:
    """Return whether scores or thresholds were made with a model file as it is configured now.

    record: with the entries of `model_identity`; an older one has no temperature. config: None: the
    ``config.yaml`` beside the model.
    """
    identity = model_identity(model_path, config)
    return all(record.get(k, MODEL_IDENTITY[k]) == value for k, value in identity.items())
