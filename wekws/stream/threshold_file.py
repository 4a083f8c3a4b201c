"""The file with the thresholds of a model, beside it.

It is ``avg_30.thresholds.json`` for ``avg_30.pt``, and ``avg_30.int8.onnx.thresholds.json`` for
``avg_30.int8.onnx``.

`wekws.bin.tune_threshold` writes it; export and detectors read it. Its content:

    checkpoint_sha256   SHA-256 of the model file that the thresholds belong to
    score_temperature   temperature of that model's posteriors; missing from older files: 1
    chosen_on           {data_list, hours}: the scored set
    budget, rule        the false alarms per hour that are allowed, and of which figure
    refractory_s        shortest time between two events of one keyword
    keywords            a list of {keyword, threshold, max_duration_s, shared_by, false_alarms,
                        negative_hours, upper_per_hour, is_supported, note}; shared_by keywords have
                        this threshold, and the false alarms are those of all of them
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wekws.errors import DataError
from wekws.files import read_json, write_json
from wekws.model.identity import is_of_model, model_identity

SUFFIX = ".thresholds.json"


def threshold_path(model_path: str | os.PathLike[str]) -> Path:
    """Return where the thresholds of a model file lie."""
    path = Path(model_path)
    # Not with_suffix: avg_30.pt and the avg_30.onnx beside it are two models.
    return path.with_name(path.name.removesuffix(".pt") + SUFFIX)


def write_threshold_file(model_path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write the thresholds of a model file; return their path.

    content: all but what says which model they belong to.
    """
    path = threshold_path(model_path)
    write_json(path, {**model_identity(model_path), **content})
    return path


def read_thresholds(
    model_path: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> dict[str, float]:
    """Return the thresholds of a model file by keyword; empty if none were chosen.

    config: the model's configuration; None: the ``config.yaml`` beside it.
    Raises: DataError if the file belongs to another model, or has no thresholds.
    """
    path = threshold_path(model_path)
    if not path.is_file():
        return {}
    content = read_json(path)
    if not is_of_model(content, model_path, config):
        raise DataError(
            f"{path}: made for another {Path(model_path).name} than the one beside it, or another "
            "score_temperature; choose the thresholds again with wekws.bin.tune_threshold, or "
            "remove the file"
        )
    entries = content.get("keywords")
    if not isinstance(entries, list):
        raise DataError(
            f"{path}: keywords: found {_short(entries)}; expected a list of keywords with "
            "thresholds; choose them again with wekws.bin.tune_threshold"
        )
    return dict(_keyword_and_threshold(path, entry) for entry in entries)


def _keyword_and_threshold(path: Path, entry: object) -> tuple[str, float]:
    values: dict[str, Any] = entry if isinstance(entry, dict) else {}
    keyword, threshold = values.get("keyword"), values.get("threshold", -1)
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if isinstance(keyword, str) and is_number and 0 <= threshold <= 1:
        return keyword, float(threshold)
    raise DataError(
        f"{path}: keywords: found {_short(entry)}; expected keyword and threshold, 0 to 1"
    )


def _short(value: object) -> str:
    """Return a value as a text of one short line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
