"""The ``model`` section of a configuration, under WeKWS's names. It is read without torch."""

import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wekws.config import load_config, parse_config
from wekws.errors import ConfigError

# Far above any wake-word model; a larger number is a slip that would take all memory.
_MAX_WIDTH, _MAX_LAYERS = 65_536, 1_000
# Far above any vocabulary; a larger number is a slip that would take all memory.
_MAX_SIZE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class FSMNConfig:
    """Section ``model.backbone``: sizes of an FSMN."""

    type: Literal["fsmn"] = "fsmn"
    """The only backbone there is."""
    input_affine_dim: int
    """Width between the two input affines, >= 1."""
    num_layers: int
    """Number of blocks, >= 1."""
    linear_dim: int
    """Channels between blocks, >= 1."""
    proj_dim: int
    """Channels of the memory, >= 1."""
    left_order: int
    """Taps on the present and past frames, >= 1."""
    right_order: int
    """Taps on future frames, >= 0."""
    left_stride: int = 1
    """Frames from one tap on the past to the next, >= 1."""
    right_stride: int = 1
    """Frames from one tap on the future to the next, >= 1."""
    output_affine_dim: int
    """Width between the two output affines; 0: a merged head, one affine from linear_dim to the
    tokens."""

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in (
            "input_affine_dim",
            "num_layers",
            "linear_dim",
            "proj_dim",
            "left_order",
            "left_stride",
            "right_stride",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected at least 1")
        for name in ("right_order", "output_affine_dim"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected at least 0")
        for name in (size.name for size in dataclasses.fields(self)):
            most = _MAX_LAYERS if name == "num_layers" else _MAX_WIDTH
            value = getattr(self, name)
            if isinstance(value, int) and value > most:
                raise ConfigError(f"{name}: found {value}; expected at most {most}")

    @property
    def is_head_merged(self) -> bool:
        """Whether the head is one affine instead of two."""
        return self.output_affine_dim == 0

    @property
    def left_reach(self) -> int:
        """Past frames that one memory depends on."""
        return (self.left_order - 1) * self.left_stride

    @property
    def right_reach(self) -> int:
        """Future frames that one memory depends on."""
        return self.right_order * self.right_stride


@dataclass(frozen=True, kw_only=True)
class CMVNConfig:
    """Section ``model.cmvn``."""

    cmvn_file: str | None = None
    """Statistics for a new model; a checkpoint contains its own."""
    norm_var: bool = True
    """Whether to divide by the standard deviation as well."""


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """Section ``model.preprocessing`` of WeKWS; an FSMN has no preprocessing layer."""

    type: Literal["none"] = "none"
    """The only value accepted."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Section ``model.classifier`` of WeKWS; an FSMN contains its own classifier."""

    type: Literal["identity"] = "identity"
    """The only value accepted."""
    dropout: float = 0.1
    """Without effect."""


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Section ``model.activation`` of WeKWS; CTC needs plain logits."""

    type: Literal["identity"] = "identity"
    """The only value accepted."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Section ``model``."""

    input_dim: int = 400
    """Features per frame after context expansion, >= 1."""
    output_dim: int = 0
    """Tokens of the vocabulary; 0 until the vocabulary is known, as in WeKWS's files."""
    cmvn: CMVNConfig = field(default_factory=CMVNConfig)
    """Feature normalisation."""
    backbone: FSMNConfig
    """Sizes of the network."""
    score_temperature: float = 1.0
    """Temperature of the softmax in scoring, detectors and exported files, > 0; above 1 posteriors
    are flatter. Training losses do not use it."""
    hidden_dim: int = 128
    """Without effect; WeKWS's files have it."""
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    """Without effect; WeKWS's files have it."""
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """Without effect; WeKWS's files have it."""
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    """Without effect; WeKWS's files have it."""

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.input_dim < 1 or self.output_dim < 0:
            raise ConfigError(
                f"input_dim {self.input_dim}, output_dim {self.output_dim}; expected at least 1 "
                "and 0"
            )
        if max(self.input_dim, self.output_dim) > _MAX_SIZE:
            raise ConfigError(
                f"input_dim {self.input_dim}, output_dim {self.output_dim}; expected at most "
                f"{_MAX_SIZE}"
            )
        if not 0 < self.score_temperature < math.inf:
            raise ConfigError(
                f"score_temperature: found {self.score_temperature:g}; expected a number above 0"
            )

    def with_output_dim(self, output_dim: int) -> "ModelConfig":
        """Return the same model for a vocabulary of another size."""
        return dataclasses.replace(self, output_dim=output_dim)

    def with_num_layers(self, num_layers: int) -> "ModelConfig":
        """Return the same model with another number of blocks."""
        backbone = dataclasses.replace(self.backbone, num_layers=num_layers)
        return dataclasses.replace(self, backbone=backbone)


def ignored_keys(config: ModelConfig) -> list[str]:
    """Return the keys that were set to something else than their default and have no effect."""
    defaults = ClassifierConfig()
    ignored = [] if config.hidden_dim == ModelConfig.hidden_dim else ["hidden_dim"]
    if config.classifier.dropout != defaults.dropout:
        ignored.append("classifier.dropout")
    return ignored


def read_model_config(path: str | os.PathLike[str]) -> ModelConfig:
    """Read the ``model`` section of a configuration file; other sections are not checked."""
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
        if not Path(checkpoint_path).exists():
            raise ConfigError(
                f"{checkpoint_path}: no such file, and no config.yaml beside it; expected a "
                "checkpoint, such as avg_30.pt"
            )
        raise ConfigError(
            f"{path}: no such file; a model's configuration lies beside it ({checkpoint_path})"
        )
    return path
