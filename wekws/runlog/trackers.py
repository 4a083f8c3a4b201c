"""Services that show a run while it is trained: TensorBoard, Weights & Biases, SwanLab.

Each writer takes the same numbers. Only the named ones are imported; apart from TensorBoard they
are optional packages (``pip install -e .[wandb]``, ``.[swanlab]``). Where they send the numbers to,
or that they stay on this machine, is set by the services' own variables, such as
``WANDB_MODE=offline`` and ``SWANLAB_MODE=offline``.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from wekws.errors import ConfigError, did_you_mean

TrackerName = Literal["tensorboard", "wandb", "swanlab"]
NAMES: tuple[TrackerName, ...] = get_args(TrackerName)


class Tracker(Protocol):
    """A writer of numbers and short texts."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers by name; step: optimiser steps done so far."""

    def text(self, name: str, text: str, step: int) -> None:
        """Write a text, such as the name of a stage that begins."""

    def close(self) -> None:
        """Write what is left, and end the run."""


class TensorBoardTracker:
    """Writes ``model_dir/tensorboard``."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any], first_step: int) -> None:
        """Continue from ``first_step``: what was written for it and later is dropped."""
        # Imported here: TensorBoard brings torch, which readers of metrics.jsonl do without.
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(model_dir / "tensorboard"), purge_step=first_step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write one scalar per name."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._board.add_text(name, text, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._board.close()


class WandbTracker:
    """Writes a run of Weights & Biases: project ``exp/NAME``'s name, run named for the model."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any], first_step: int) -> None:
        """Begin the run, or continue that of the same folder."""
        import wandb

        folder = model_dir.resolve()
        self._run = wandb.init(
            project=folder.parent.name,
            name=folder.name,
            id=_run_id(folder),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of a step."""
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str, step: int) -> None:
        """Write a text as a value of its own."""
        self._run.log({name: text}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class SwanlabTracker:
    """Writes an experiment of SwanLab, named as ``WandbTracker`` names its runs."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any], first_step: int) -> None:
        """Begin the experiment, or continue that of the same folder."""
        import swanlab

        folder = model_dir.resolve()
        self._swanlab = swanlab
        swanlab.init(
            project=folder.parent.name,
            name=folder.name,
            log_dir=str(folder / "swanlab"),
            config=dict(settings),
            id=_run_id(folder),
            resume="allow",
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of a step."""
        self._swanlab.log(dict(values), step=step)

    def text(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._swanlab.log({name: self._swanlab.Text(text)}, step=step)

    def close(self) -> None:
        """Finish the experiment."""
        self._swanlab.finish()


_MAKERS: dict[TrackerName, Callable[[Path, Mapping[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "swanlab": SwanlabTracker,
}


def require_trackers(names: Collection[str]) -> None:
    """Raise ConfigError for a name that is no tracker, or whose package is not installed."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(
                f"--tracker {name}: expected some of {', '.join(NAMES)}, or none"
                f"{did_you_mean(name, NAMES)}"
            )
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ConfigError(f"--tracker {name}: not installed; pip install -e .[{name}]")


def trackers_from_text(text: str) -> tuple[TrackerName, ...]:
    """Return the trackers of a text such as ``tensorboard,wandb``; ``none`` is none.

    Raises: ConfigError as ``require_trackers`` does.
    """
    names = tuple(name for name in text.split(",") if name and name != "none")
    require_trackers(names)
    return tuple(name for name in NAMES if name in names)


def open_trackers(
    names: Collection[TrackerName], model_dir: Path, settings: Mapping[str, Any], first_step: int
) -> list[Tracker]:
    """Open the trackers of a run.

    settings: the configuration of the run, for those that show it. first_step: the first step that
    is still to be written.
    """
    return [_MAKERS[name](model_dir, settings, first_step) for name in names]


def numbers_of(prefix: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by name; those in mappings too: ``layers/gradient/fsmn.0``."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= numbers_of(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and name != "epoch":
            found[f"{prefix}/{name}"] = value
    return found


def _run_id(folder: Path) -> str:
    """Return 16 hexadecimal digits that stand for a folder, so that a resumed run goes on."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]
