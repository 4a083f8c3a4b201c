"""The presets of ``conf/presets``: their files, numbers and purposes."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wekws.config import load_yaml_with_base
from wekws.errors import ConfigError, did_you_mean

PRESET_DIR = Path("conf/presets")
SHORT_TEACHERS = {"quick": (2, 4)}
"""Epochs of base and teacher for a preset that is short from nothing to report."""


def preset_paths(folder: Path) -> dict[str, Path]:
    """Return the presets by name, the shortest training first.

    Raises: ConfigError if there are none.
    """
    paths = sorted(folder.glob("*.yaml"), key=lambda path: (_max_epoch(path), path.stem))
    if not paths:
        raise ConfigError(f"{folder}: no presets in it; expected NAME.yaml")
    return {path.stem: path for path in paths}


def _max_epoch(path: Path) -> int:
    training: Mapping[str, Any] = load_yaml_with_base(path).get("training_config") or {}
    return int(training.get("max_epoch") or 0)


def find_preset(folder: Path, text: str) -> Path:
    """Return the preset of a name, or of a number as ``--preset list`` shows it.

    Raises: ConfigError for another text, with a suggestion.
    """
    known = preset_paths(folder)
    names = list(known)
    if text.isdigit() and 1 <= int(text) <= len(names):
        text = names[int(text) - 1]
    if text in known:
        return known[text]
    raise ConfigError(
        f"--preset {text}: expected one of {', '.join(names)}, their number 1 to {len(names)}, "
        f"list, ask{did_you_mean(text, names)}"
    )


def preset_purpose(path: Path) -> str:
    """Return what a preset is for: the first sentence of the comment at its head."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in head).partition(". ")[0].rstrip(".")
