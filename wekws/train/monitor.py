"""A run that watches itself: gradients by layer, and a warning when something goes wrong."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wekws.distill.distill_rules import ALL_RULES
from wekws.runlog.health import health_changes
from wekws.runlog.metrics_writer import MetricsWriter

logger = logging.getLogger(__name__)


class LayerNorms:
    """Norms of the gradients of each layer, of a few steps of an epoch."""

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        """Look at the student, block by block, and at the objective's adapters and heads."""
        self._layers = _by_layer(model, _student_layer)
        self._adapters = _by_layer(objective, _adapter_layer)
        self._sums: dict[str, Tensor] = {}
        self._num_looks = 0

    def look(self) -> None:
        """Take in the gradients of a step, before they are clipped; a frozen layer has none."""
        self._num_looks += 1
        for name, parameters in (self._layers | self._adapters).items():
            moved = [p for p in parameters if p.requires_grad and p.grad is not None]
            if gradients := [p.grad for p in moved]:
                norm = nn.utils.get_total_norm(gradients)
                self._sums[name] = self._sums[name] + norm if name in self._sums else norm

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the mean norms of the steps looked at.

        gradient: of the student's layers. Where there are adapters: adapter_gradient, and
        adapter_weight, the norm of their weights now. A layer that is frozen is left out.
        """
        means = {name: float(total) / self._num_looks for name, total in self._sums.items()}
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
    """``hidden.adapters.0.weight`` belongs to ``hidden.adapters.0``."""
    return name.rpartition(".")[0]


def watch(records: MetricsWriter, step: int) -> None:
    """Write what began to go wrong or came right in the last epoch; warn once of what began."""
    remedies = {rule.name: rule.remedy for rule in ALL_RULES}
    for row in health_changes(records.rows, ALL_RULES):
        records.write("health", step, row)
        if row["state"] == "began":
            remedy = remedies[row["problem"]]
            logger.warning("epoch %d: %s. %s", row["epoch"], row["text"], remedy)
