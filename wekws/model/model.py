"""The acoustic model: CMVN followed by the FSMN."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wekws.errors import DataError
from wekws.model.cmvn import GlobalCMVN
from wekws.model.fsmn import FSMN, FSMNBlock
from wekws.model.model_conf import ModelConfig


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


def skeleton(config: ModelConfig) -> KwsModel:
    """Return the model on the meta device: shapes and names, no memory for the weights."""
    with torch.device("meta"):
        return KwsModel(config)


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
