"""Means of the loss terms and the pace of a training epoch."""

import time

import torch
from torch import Tensor

from wekws.distill.loss import Loss
from wekws.train.distributed import add_over_peers
from wekws.train.step import Run


class Meter:
    """Means of the loss terms over an interval and over the epoch, and the pace."""

    def __init__(self, run: Run, epoch: int) -> None:
        """Begin an epoch."""
        self._run = run
        max_epoch = run.experiment.training_config.max_epoch
        # A stage lasts whole epochs, and what it leaves out is not computed.
        self._names = tuple(run.objective.weights(epoch / max_epoch))
        self._counts = run.objective.counts
        size = 2 * len(self._names) + len(self._counts)
        self._interval = torch.zeros(size, dtype=torch.float64, device=run.process.device)
        self._epoch = torch.zeros_like(self._interval)
        self._num_interval = self._num_epoch = self._num_steps = 0
        self._norm = 0.0
        self._started = time.monotonic()
        self._num_left = (max_epoch - epoch) * len(run.train_set)

    def add(self, loss: Loss, norm: Tensor, num_utterances: int) -> None:
        """Count one step; terms are this process's share of a mean over ``num_utterances``."""
        values = [
            kind[name].double() for kind in (loss.terms, loss.weighted) for name in self._names
        ]
        values = [value * num_utterances for value in values]
        nothing = self._interval.new_zeros(())
        counts = [loss.counts.get(name, nothing) for name in self._counts]
        self._interval += torch.stack([*values, *counts])
        self._num_interval += num_utterances
        self._num_steps += 1
        self._norm += float(norm)

    def interval(self, rate: float, progress: float) -> dict[str, float]:
        """Return the fields of a log line and start the next interval.

        Each term as it is (``kd``) and, where there are several, as it enters the loss
        (``weighted_kd``); alpha and temperature as they were in the last step.
        """
        sums = add_over_peers(self._run.process, self._interval)
        now = time.monotonic()
        pace = self._num_interval / max(now - self._started, 1e-9)
        self._epoch += sums
        self._num_epoch += self._num_interval
        terms, weighted, figures = self._means(sums, self._num_interval)
        row = {**terms, "loss": sum(weighted.values())}
        if len(terms) > 1:
            row |= {f"weighted_{name}": value for name, value in weighted.items()}
        row |= figures
        objective = self._run.objective
        if objective.taught:
            row |= {
                "alpha": objective.alpha(progress),
                "temperature": objective.temperature(progress),
            }
        row |= {
            "lr": rate,
            "grad_norm": self._norm / self._num_steps,
            "utt_per_s": round(pace, 1),
            "eta_s": round((self._num_left - self._num_epoch) / pace),
        }
        self._interval = torch.zeros_like(self._interval)
        self._num_interval = self._num_steps = 0
        self._norm, self._started = 0.0, now
        return row

    def epoch_means(self) -> dict[str, float]:
        """Return the epoch's mean of each term and of the weighted loss, and its figures."""
        terms, weighted, figures = self._means(self._epoch, self._num_epoch)
        named = {f"train_{name}": value for name, value in terms.items()}
        return {**named, "train_loss": sum(weighted.values()), **figures}

    def _means(self, sums: Tensor, num: int) -> tuple[dict[str, float], ...]:
        """Return the means of the terms as they are, as they enter the loss, and the figures."""
        keys = (*self._names, *self._names, *self._counts)
        pairs = list(zip(keys, sums.tolist(), strict=True))
        size = len(self._names)
        terms = {name: value / num for name, value in pairs[:size]}
        weighted = {name: value / num for name, value in pairs[size : 2 * size]}
        return terms, weighted, self._run.objective.figures(dict(pairs[2 * size :]))
