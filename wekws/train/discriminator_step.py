"""The discriminators' side of adversarial distillation: their optimiser and their step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wekws.distill.taps import Outputs
from wekws.train.distributed import add_gradients
from wekws.train.step import Heard, Run, forward


class Rival:
    """Moves the discriminators one step before each of the student's, on the same batch.

    Adam's first decay is 0.5, as is usual where two networks play against each other.
    Source: Radford et al. 2016, arXiv:1511.06434, section 4.
    """

    def __init__(self, run: Run) -> None:
        """Play for the discriminators of the run's objective."""
        self._judges = run.objective.rivals
        self._parameters = list(self._judges.parameters())
        lr = run.objective.config.adversarial.lr
        self._optimizer = torch.optim.Adam(self._parameters, lr=lr, betas=(0.5, 0.999))

    def step(
        self, run: Run, parts: Sequence[Heard], known: Outputs | None = None
    ) -> dict[str, Tensor]:
        """Learn to tell student from teacher on a batch, given in parts; return its counts.

        known: what student and teacher make of the only part; None: they are asked.
        Like the student's gradient, theirs is a mean over the utterances of the whole step: it
        adds up over parts and processes.
        """
        self._judges.requires_grad_(True)
        counts = []
        for part in parts:
            with torch.no_grad():
                outputs = known or forward(run, run.model, part, use_teacher=True, use_again=False)
                aligned = run.objective.aligned(outputs)
            loss, judged = self._judges.verdict(aligned)
            (loss / part.num_global).backward()
            counts.append(judged)
        add_gradients(run.process, self._parameters)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._judges.requires_grad_(False)
        return {name: torch.stack([each[name] for each in counts]).sum() for name in counts[0]}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs beside the discriminators, which the objective keeps."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        self._optimizer.load_state_dict(state)
