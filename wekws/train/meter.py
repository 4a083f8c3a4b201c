"""Means of the loss terms and the pace of a training epoch."""

import time

import torch
from torch import Tensor

from wekws.distill.objective import Loss
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
        size = 2 * len(self._names)
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
        self._interval += torch.stack(values) * num_utterances
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
        terms, weighted = self._means(sums, self._num_interval)
        row = {**terms, "loss": sum(weighted.values())}
        if len(terms) > 1:
            row |= {f"weighted_{name}": value for name, value in weighted.items()}
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
        """Return the epoch's mean of each term and of the weighted loss."""
        terms, weighted = self._means(self._epoch, self._num_epoch)
        named = {f"train_{name}": value for name, value in terms.items()}
        return {**named, "train_loss": sum(weighted.values())}

    def _means(self, sums: Tensor, num: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return the means of the terms as they are, and as they enter the loss."""
        means, count = [value / num for value in sums.tolist()], len(self._names)
        names = self._names
        return dict(zip(names, means[:count], strict=True)), dict(
            zip(names, means[count:], strict=True)
        )
