"""The whole acoustic model: CMVN and backbone."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.errors import ConfigError, DataError
from wekws.model.cmvn import GlobalCMVN
from wekws.model.fsmn import FSMN, FSMNConfig


@dataclass(frozen=True, kw_only=True)
class CMVNConfig:
    """Section ``model.cmvn``.

    cmvn_file: statistics that a new model starts from; a checkpoint carries its own.
    norm_var: divide by the standard deviation too.
    """

    cmvn_file: str | None = None
    norm_var: bool = True


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """Section ``model.preprocessing`` of WeKWS; an FSMN has none."""

    type: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Section ``model.classifier`` of WeKWS; an FSMN brings its own, ``dropout`` has no effect."""

    type: Literal["identity"] = "identity"
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """Section ``model.activation`` of WeKWS; CTC wants none."""

    type: Literal["identity"] = "identity"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Section ``model``.

    input_dim: features a frame, spliced. output_dim: tokens of the vocabulary; 0 until the
    vocabulary is known (WeKWS's files leave it out), and no model is built before.
    hidden_dim and the last three sections: WeKWS wants them in its files, they change nothing.
    """

    input_dim: int = 400
    output_dim: int = 0
    cmvn: CMVNConfig = field(default_factory=CMVNConfig)
    backbone: FSMNConfig
    hidden_dim: int = 128
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)

    def __post_init__(self) -> None:
        """Refuse sizes that describe no model."""
        if self.input_dim < 1 or self.output_dim < 0:
            raise ConfigError(
                f"input_dim {self.input_dim}, output_dim {self.output_dim}; expected at least 1 "
                "and 0"
            )

    def with_output_dim(self, output_dim: int) -> "ModelConfig":
        """Return the same model for a vocabulary of another size."""
        return dataclasses.replace(self, output_dim=output_dim)

    def with_num_layers(self, num_layers: int) -> "ModelConfig":
        """Return the same model with another number of blocks."""
        backbone = dataclasses.replace(self.backbone, num_layers=num_layers)
        return dataclasses.replace(self, backbone=backbone)


class KwsModel(nn.Module):
    """Features in, unnormalised token scores out; state keys are WeKWS's."""

    def __init__(self, config: ModelConfig, cmvn: tuple[Tensor, Tensor] | None = None) -> None:
        """Make a model with random weights.

        cmvn: mean and inverse deviation, (input_dim,) each; None: features come normalised.
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

    def append_block(self) -> nn.ModuleList:
        """Put one more block, of random weights, before the head; return it."""
        block = self.backbone.append_block()
        self.config = self.config.with_num_layers(self.backbone.config.num_layers)
        return block

    def load_weights(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Copy a state dict of exactly this model's keys and shapes.

        source: where it comes from, for messages.
        Raises: DataError that lists every missing, unexpected and mismatching tensor with shapes.
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
    """Return the keys that someone set to a value of his own and that nothing reads."""
    defaults = ClassifierConfig()
    ignored = [] if config.hidden_dim == ModelConfig.hidden_dim else ["hidden_dim"]
    if config.classifier.dropout != defaults.dropout:
        ignored.append("classifier.dropout")
    return ignored


def skeleton(config: ModelConfig) -> KwsModel:
    """Return the model without storage: shapes and names only."""
    with torch.device("meta"):
        return KwsModel(config)
