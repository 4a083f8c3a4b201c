"""The acoustic model: CMVN followed by the FSMN."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.errors import ConfigError, DataError
from wekws.model.cmvn import GlobalCMVN
from wekws.model.fsmn import FSMN, FSMNBlock, FSMNConfig

# Far above any vocabulary; a larger number is a slip that would take all memory.
_MAX_SIZE = 1_000_000


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

    def with_output_dim(self, output_dim: int) -> "ModelConfig":
        """Return the same model for a vocabulary of another size."""
        return dataclasses.replace(self, output_dim=output_dim)

    def with_num_layers(self, num_layers: int) -> "ModelConfig":
        """Return the same model with another number of blocks."""
        backbone = dataclasses.replace(self.backbone, num_layers=num_layers)
        return dataclasses.replace(self, backbone=backbone)


class KwsModel(nn.Module):
    """CMVN and FSMN: maps features to logits over tokens. State keys are WeKWS's."""

    def __init__(self, config: ModelConfig, cmvn: tuple[Tensor, Tensor] | None = None) -> None:
        """Create a model with random weights.

        cmvn: mean and inverse standard deviation, (input_dim,) each; None: no normalisation.
        """
        super().__init__()
        self.config = config
        self.global_cmvn = GlobalCMVN(*cmvn, config.cmvn.norm_var) if cmvn is not None else None
        self.backbone = FSMN(config.input_dim, config.output_dim, config.backbone)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map features to logits.

        feats: (B, T, input_dim). lengths: (B,) valid frames; None: all. Returns: (B, T, V), zero
        on padding.
        """
        if self.global_cmvn is not None:
            feats = self.global_cmvn(feats)
        return self.backbone(feats, lengths)

    @property
    def cmvn(self) -> tuple[Tensor, Tensor] | None:
        """Mean and inverse standard deviation, as the constructor takes them; None: none."""
        return None if self.global_cmvn is None else (self.global_cmvn.mean, self.global_cmvn.istd)

    def append_block(self) -> FSMNBlock:
        """Add a block with random weights between the last one and the head, and return it."""
        block = self.backbone.append_block()
        self.config = self.config.with_num_layers(self.backbone.config.num_layers)
        return block

    def load_weights(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Copy a state dict that has exactly this model's keys and shapes.

        source: origin of the state dict, for error messages.
        Raises: DataError listing every missing, unexpected and mismatching tensor with shapes.
        """
        own = self.state_dict()
        problems = [f"missing {k} {tuple(v.shape)}" for k, v in own.items() if k not in state]
        problems += [f"unexpected {k} {tuple(v.shape)}" for k, v in state.items() if k not in own]
        problems += [
            f"mismatch {k}: {tuple(state[k].shape)}, the model has {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and state[k].shape != v.shape
        ]
        if problems:
            lines = "\n  ".join(problems)
            raise DataError(f"{source}: does not fit the configured model:\n  {lines}")
        self.load_state_dict(state)


def ignored_keys(config: ModelConfig) -> list[str]:
    """Return the keys that were set to something else than their default and have no effect."""
    defaults = ClassifierConfig()
    ignored = [] if config.hidden_dim == ModelConfig.hidden_dim else ["hidden_dim"]
    if config.classifier.dropout != defaults.dropout:
        ignored.append("classifier.dropout")
    return ignored


def skeleton(config: ModelConfig) -> KwsModel:
    """Return the model on the meta device: shapes and names, no memory for the weights."""
    with torch.device("meta"):
        return KwsModel(config)
