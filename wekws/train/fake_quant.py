"""Fake quantisation in training, for students that lose in int8.

Weights and inputs of every linear layer, and inputs of the memories, are rounded in the forward
pass as `wekws.export.precision` rounds them: weights to 7 bits and a scale per output channel,
inputs to 8 bits between their smallest and largest value, here those of the batch. Gradients pass
the rounding unchanged (straight-through estimator: Bengio et al. 2013, arXiv:1308.3432; as in
Jacob et al. 2018, arXiv:1712.05877). The weights themselves stay float32, in the same checkpoints.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.model.fsmn import Memory
from wekws.model.model import KwsModel

WEIGHT_MAX = 64
"""Weights use 7 of 8 bits, see `wekws.export.precision`."""
FINE_TUNING_LR = 1e-4
"""Learning rate of fine-tuning: the cv loss falls from the first epoch on (README, Export)."""
_ACTIVATION_MAX = 255


def add_fake_quant(model: KwsModel) -> None:
    """Let a model round weights and inputs in every forward pass, in training and evaluation."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(_rounded_linear)
        elif isinstance(module, Memory):
            module.register_forward_pre_hook(_rounded_input)


def round_weight(weight: Tensor) -> Tensor:
    """Return a weight (out, in) in steps of 1 / `WEIGHT_MAX` of each row's largest value."""
    scale = weight.detach().abs().amax(dim=1).clamp(min=1e-12) / WEIGHT_MAX
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -WEIGHT_MAX, WEIGHT_MAX)


def round_input(x: Tensor) -> Tensor:
    """Return values in 255 steps from their smallest to their largest, 0 among the steps."""
    if not x.numel():
        return x
    low, high = x.detach().aminmax()
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / _ACTIVATION_MAX).clamp(min=1e-12).float()
    zero = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, _ACTIVATION_MAX)


def _rounded_linear(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return F.linear(round_input(inputs[0]), round_weight(layer.weight), layer.bias)


def _rounded_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (round_input(inputs[0]), *inputs[1:])
