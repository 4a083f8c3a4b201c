"""Checks that models, dictionaries, CMVN and front ends belong together."""

import dataclasses
import logging
from pathlib import Path

import torch
from torch import Tensor

from wekws.dataset.vocabulary import Vocabulary
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd
from wekws.train.train_config import TrainConfig, load_train_config

logger = logging.getLogger(__name__)

Cmvn = tuple[Tensor, Tensor]
"""Mean and inverse deviation of the model input, (input_dim,) each."""


def require_same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> None:
    """Compare the dict.txt beside a checkpoint, where there is one, with the run's dictionary.

    Raises: ConfigError naming both, if they differ.
    """
    path = checkpoint.parent / "dict.txt"
    if not path.exists():
        logger.warning("%s: no dict.txt beside it; assuming the run's tokens", checkpoint)
        return
    other = Vocabulary.load(path)
    if other.fingerprint != vocabulary.fingerprint:
        raise ConfigError(
            f"{path}: {other.size} tokens, fingerprint {other.fingerprint}; the run's dictionary "
            f"has {vocabulary.size}, {vocabulary.fingerprint}; cut the checkpoint's output layer "
            "with `python -m wekws.bin.surgery` or train with its dictionary"
        )


def require_same_cmvn(first: Cmvn, second: Cmvn, first_name: str, second_name: str) -> None:
    """Raise ConfigError if two normalisations differ by more than rounding."""
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape or not torch.allclose(a.cpu(), b.cpu(), rtol=1e-4, atol=1e-5):
            raise ConfigError(
                f"{first_name} and {second_name} normalise features differently; use the CMVN "
                "that the checkpoint was trained with"
            )


def require_same_front_end(config_path: Path, config: TrainConfig) -> None:
    """Compare another model's features and frame rate with the run's.

    Raises: ConfigError naming what differs.
    """
    other = load_train_config(config_path).dataset_conf.front_end
    own = config.dataset_conf.front_end
    names = [field.name for field in dataclasses.fields(FrontEnd)]
    different = [name for name in names if getattr(other, name) != getattr(own, name)]
    if different:
        found = ", ".join(f"{name} {getattr(other, name)}" for name in different)
        expected = ", ".join(f"{name} {getattr(own, name)}" for name in different)
        raise ConfigError(
            f"{config_path}: dataset_conf has {found}; the student's has {expected}; teacher and "
            "student must take the same frames"
        )
