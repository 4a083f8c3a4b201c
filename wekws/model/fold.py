"""Two output affines with nothing between them are one."""

import dataclasses

import torch

from wekws.model.checkpoint import model_of
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel

_FIRST, _LAST = "backbone.out_linear1.linear", "backbone.out_linear2.linear"


@torch.no_grad()
def fold_head(model: KwsModel) -> KwsModel:
    """Return the same function with a merged head: ``W2 W1 x + (W2 b1 + b2)``.

    The products are taken in double precision. All else, CMVN included, is copied; so is a whole
    model whose head is merged already. Returns: on the CPU, in eval mode.
    """
    state = model.state_dict()
    if not model.config.backbone.is_head_merged:
        first, first_bias = (state.pop(f"{_FIRST}.{part}").double() for part in ("weight", "bias"))
        last, last_bias = (state[f"{_LAST}.{part}"].double() for part in ("weight", "bias"))
        state[f"{_LAST}.weight"] = last @ first
        state[f"{_LAST}.bias"] = last @ first_bias + last_bias
    backbone = dataclasses.replace(model.config.backbone, output_affine_dim=0)
    config = dataclasses.replace(model.config, backbone=backbone)
    return model_of(config, state, source="the folded head")


def why_larger(config: FSMNConfig, num_tokens: int) -> str:
    """Return why folding adds parameters, empty where it does not.

    A merged head has linear_dim weights a token and a pair output_affine_dim, after linear_dim x
    output_affine_dim that all tokens share: with many tokens the pair is the smaller form.
    """
    width, inner = config.linear_dim, config.output_affine_dim
    if inner == 0 or width * num_tokens <= inner * (width + num_tokens + 1):
        return ""
    return (
        f"folding makes it larger: one affine of {width} x {num_tokens} weights in place of "
        f"{width} x {inner} and {inner} x {num_tokens}; with so many tokens the pair of rank "
        f"{inner} is the smaller way to write the same function"
    )
