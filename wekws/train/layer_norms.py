"""Norms of the gradients and weights of each layer."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class LayerNorms:
    """Norms of the gradients of each layer, measured in a few steps of an epoch."""

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        """Measure the student, block by block, and the objective's adapters and heads."""
        self._layers = _by_layer(model, _student_layer)
        self._adapters = _by_layer(objective, _adapter_layer)
        self._sums: dict[str, Tensor] = {}
        self._num_steps = 0

    def measure(self) -> None:
        """Add the gradients of a step, before they are clipped; a frozen layer has none."""
        self._num_steps += 1
        for name, parameters in (self._layers | self._adapters).items():
            trained = (p for p in parameters if p.requires_grad)
            if gradients := [p.grad for p in trained if p.grad is not None]:
                norm = nn.utils.get_total_norm(gradients)
                self._sums[name] = self._sums[name] + norm if name in self._sums else norm

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the mean norms of the measured steps.

        gradient: of the student's layers. Where there are adapters: adapter_gradient, and
        adapter_weight, the current norm of their weights. A frozen layer is left out.
        """
        means = {name: float(total) / self._num_steps for name, total in self._sums.items()}
        row = {"gradient": {name: means[name] for name in self._layers if name in means}}
        if self._adapters:
            row["adapter_gradient"] = {n: means[n] for n in self._adapters if n in means}
            with torch.no_grad():
                row["adapter_weight"] = {
                    name: float(nn.utils.get_total_norm(parameters))
                    for name, parameters in self._adapters.items()
                }
        return row


def _by_layer(module: nn.Module, layer_of: Callable[[str], str]) -> dict[str, list[nn.Parameter]]:
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        layers.setdefault(layer_of(name), []).append(parameter)
    return layers


def _student_layer(name: str) -> str:
    """``backbone.fsmn.0.1.conv_left.weight`` belongs to ``fsmn.0``: a block is one layer."""
    parts = name.removeprefix("backbone.").split(".")
    return ".".join(parts[:2]) if parts[0] == "fsmn" else parts[0]


def _adapter_layer(name: str) -> str:
    """``layer_pairs.adapters.0.weight`` belongs to ``layer_pairs.adapters.0``."""
    return name.rpartition(".")[0]
