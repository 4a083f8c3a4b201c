"""Gradients of the loss terms, measured one by one."""

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.train.distributed import Process, add_over_peers


class GradientProbe:
    """Gradient of each weighted term alone, over the parts of one step."""

    def __init__(self, model: nn.Module, task_terms: Collection[str]) -> None:
        """Measure the gradients of ``model``'s parameters, not those of adapters.

        task_terms: names of the terms that use the labels.
        """
        self._task_terms = frozenset(task_terms)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._sums: dict[str, Tensor] = {}

    def add(self, weighted: Mapping[str, Tensor]) -> None:
        """Add one part of the step; its graph is kept for the step's own backward pass."""
        for name, value in weighted.items():
            flat = self._gradient(value)
            self._sums[name] = self._sums[name] + flat if name in self._sums else flat

    def _gradient(self, value: Tensor) -> Tensor:
        if not value.requires_grad:  # All that it depends on is frozen.
            return value.new_zeros(sum(p.numel() for p in self._parameters))
        parts = torch.autograd.grad(
            value, self._parameters, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])

    def figures(self, process: Process) -> dict[str, float]:
        """Return norm and share of each term, and each distillation term's cosine to the task.

        grad_norm_X: norm of the gradient of the weighted term X. grad_share_X: its share of the sum
        of all norms, 0 to 1. grad_cos_X: cosine between the task's gradient (CTC with its
        smoothing) and X's; below 0 the two terms work against each other.
        """
        sums = {name: add_over_peers(process, flat) for name, flat in self._sums.items()}
        norms = {name: float(flat.norm()) for name, flat in sums.items()}
        whole = max(sum(norms.values()), 1e-30)
        task = torch.stack([flat for name, flat in sums.items() if name in self._task_terms]).sum(
            dim=0
        )
        row = {f"grad_norm_{name}": norm for name, norm in norms.items()}
        row |= {f"grad_share_{name}": norm / whole for name, norm in norms.items()}
        for name, flat in sums.items():
            if name not in self._task_terms:
                row[f"grad_cos_{name}"] = float(F.cosine_similarity(task, flat, dim=0))
        return row
