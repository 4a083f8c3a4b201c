"""Means of the loss terms and the pace of a training epoch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.distill.method import LossValue
from wekws.distill.objective import Objective
from wekws.train.distributed import Process, add_over_peers


@dataclass(frozen=True)
class _Means:
    """Means over some steps, per utterance."""

    terms: dict[str, float]
    """Each term, unweighted."""
    weighted: dict[str, float]
    """Each term's part of the loss."""
    figures: dict[str, float]
    """The methods' own figures."""

    @property
    def loss(self) -> float:
        """The weighted sum."""
        return sum(self.weighted.values())


class RunningMeans:
    """Means of the loss terms over an interval and over the epoch, and the pace."""

    def __init__(
        self,
        objective: Objective,
        names: Sequence[str],
        *,
        process: Process,
        num_utterances_left: int,
    ) -> None:
        """Begin an epoch.

        names: the terms computed in this epoch; a stage lasts whole epochs. num_utterances_left:
        from here to the end of the training, for the expected time.
        """
        self._objective, self._process = objective, process
        self._names, self._count_names = tuple(names), objective.count_names
        size = 2 * len(self._names) + len(self._count_names)
        self._interval = torch.zeros(size, dtype=torch.float64, device=process.device)
        self._epoch = torch.zeros_like(self._interval)
        self._num_interval = self._num_epoch = self._num_steps = 0
        self._norm = self._interval.new_zeros(())
        self._started = time.monotonic()
        self._num_left = num_utterances_left

    def add(self, loss: LossValue, norm: Tensor, num_utterances: int) -> None:
        """Count one step; terms are this process's share of a mean over ``num_utterances``."""
        values = [
            kind[name].double() for kind in (loss.terms, loss.weighted) for name in self._names
        ]
        values = [value * num_utterances for value in values]
        nothing = self._interval.new_zeros(())
        counts = [loss.counts.get(name, nothing) for name in self._count_names]
        self._interval += torch.stack([*values, *counts])
        self._num_interval += num_utterances
        self._num_steps += 1
        self._norm += norm  # in float64; read when the interval ends

    def interval(self, learning_rate: float, progress: float) -> dict[str, float]:
        """Return the fields of a log line and start the next interval.

        Each term unweighted (``kd``) and, where there are several, its part of the loss
        (``weighted_kd``); alpha and temperature of the last step.
        """
        sums = add_over_peers(self._process, self._interval)
        now = time.monotonic()
        pace = self._num_interval / max(now - self._started, 1e-9)
        self._epoch += sums
        self._num_epoch += self._num_interval
        means = self._means(sums, self._num_interval)
        row = {**means.terms, "loss": means.loss}
        if len(means.terms) > 1:
            row |= {f"weighted_{name}": value for name, value in means.weighted.items()}
        row |= means.figures
        if self._objective.distillation_terms:
            row["alpha"] = self._objective.alpha(progress)
            row["temperature"] = self._objective.temperature(progress)
        row |= {
            "lr": learning_rate,
            "grad_norm": float(self._norm) / self._num_steps,
            "utt_per_s": round(pace, 1),
            "eta_s": round((self._num_left - self._num_epoch) / pace),
        }
        self._interval = torch.zeros_like(self._interval)
        self._num_interval = self._num_steps = 0
        self._norm, self._started = torch.zeros_like(self._norm), now
        return row

    def epoch(self) -> dict[str, float]:
        """Return the epoch's mean of each term and of the loss, and the methods' figures."""
        means = self._means(self._epoch, self._num_epoch)
        terms = {f"train_{name}": value for name, value in means.terms.items()}
        return {**terms, "train_loss": means.loss, **means.figures}

    def _means(self, sums: Tensor, num: int) -> _Means:
        values, size = sums.tolist(), len(self._names)
        counts = dict(zip(self._count_names, values[2 * size :], strict=True))
        return _Means(
            {n: value / num for n, value in zip(self._names, values[:size], strict=True)},
            {n: v / num for n, v in zip(self._names, values[size : 2 * size], strict=True)},
            self._objective.figures(counts),
        )
