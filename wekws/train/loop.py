"""The training loop, the same with and without a teacher.

Nothing random is carried from step to step: the order of an epoch and the masks of a step come
from (seed, epoch, step), so that a run resumed at an epoch's start repeats the run that was not
interrupted, to the last bit on one CPU.
"""

import sys
import time

import torch
from torch import Tensor, nn
from tqdm import tqdm

from wekws.dataset.loader import Batch
from wekws.distill.objective import Loss
from wekws.errors import DataError
from wekws.train.checkpoint import save_epoch, save_final
from wekws.train.distributed import add_gradients, add_over_peers
from wekws.train.records import Records
from wekws.train.step import (
    Run,
    evaluate,
    forward_loss,
    front_end,
    num_steps,
    own_batches,
    step_generator,
)


def fit(run: Run) -> None:
    """Train from ``run.start_epoch`` to the last epoch.

    Before the first step of a fresh run comes a cv pass (epoch -1), so that what the
    initialisation brought is a number.
    Raises: DataError naming step and utterances if a loss or gradient is not finite.
    """
    max_epoch = run.experiment.training_config.max_epoch
    last_epoch = run.start_epoch - 1 if run.start_epoch else -2
    records = Records(run.model_dir, last_epoch=last_epoch, is_first=run.process.is_first)
    if run.start_epoch == 0:
        _record_start(run, records)
    for epoch in range(run.start_epoch, max_epoch):
        started = time.monotonic()
        trained = _train_epoch(run, epoch, records)
        figures = {"lr": run.optimizer.param_groups[0]["lr"], **evaluate(run, run.model), **trained}
        run.learning_rate.after_epoch(figures["cv_loss"])
        figures["seconds"] = round(time.monotonic() - started, 3)
        records.write("cv", run.step, {"epoch": epoch, **figures})
        if run.process.is_first:
            save_epoch(run.model_dir, epoch, run.model, figures, _state(run))
    if run.process.is_first:
        save_final(run.model_dir, max_epoch - 1)
    records.close()


def _record_start(run: Run, records: Records) -> None:
    """Write cv figures before the first step, and how far a transplant brought the student."""
    rows = {"epoch": -1}
    if run.teacher is not None:
        teacher = evaluate(run, run.teacher)
        records.write("teacher", 0, {**rows, **teacher})
    student = evaluate(run, run.model)
    records.write("cv", 0, {**rows, **student})
    if run.random is None or run.teacher is None:
        return
    start, end = evaluate(run, run.random)["cv_loss"], teacher["cv_loss"]
    figures = {"random": start, "transplant": student["cv_loss"], "teacher": end}
    if start > end:
        figures["gap_closed"] = (start - student["cv_loss"]) / (start - end)
    records.write("start", 0, {**rows, **figures})


def _state(run: Run) -> dict:
    return {
        "step": run.step,
        "optimizer": run.optimizer.state_dict(),
        "learning_rate": run.learning_rate.state_dict(),
    }


def _train_epoch(run: Run, epoch: int, records: Records) -> dict[str, float]:
    """Train one epoch; return each term's mean over its utterances."""
    config = run.experiment.training_config
    total = num_steps(run, epoch)
    run.model.train()
    meter = _Meter(run, epoch)
    is_quiet = not (run.process.is_first and sys.stderr.isatty())
    own = own_batches(run, run.train_set, epoch)
    bar = tqdm(own, total=total, desc=f"epoch {epoch}", disable=is_quiet, leave=False)
    for index, batch in enumerate(bar):
        rate = run.learning_rate.before_step(epoch + (index + 1) / total)
        loss = _backward(run, epoch, index, batch)
        add_gradients(run.process, run.model)
        norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.grad_clip)
        _require_finite(loss, norm, epoch, index, batch)
        run.optimizer.step()
        run.step += 1
        meter.add(loss, norm, batch.num_global)
        if (index + 1) % config.log_interval == 0 or index + 1 == total:
            records.write("step", run.step, {"epoch": epoch, **meter.interval(rate)})
    return meter.epoch_means()


def _backward(run: Run, epoch: int, index: int, batch: Batch) -> Loss:
    """Leave the gradient of this process's share of the batch."""
    run.optimizer.zero_grad(set_to_none=True)
    batch = batch.to(run.process.device)
    inputs, lengths = front_end(run, batch, step_generator(run, epoch, index))
    loss = forward_loss(run, batch, inputs, lengths)
    loss.total.backward()
    return loss


def _require_finite(loss: Loss, norm: Tensor, epoch: int, index: int, batch: Batch) -> None:
    if not (torch.isfinite(norm) and torch.isfinite(loss.total)):
        raise DataError(
            f"epoch {epoch}, step {index}: the loss or its gradient is not finite; the weights "
            f"were left as they were. Utterances of the step: {', '.join(batch.keys)}"
        )


class _Meter:
    """Means of the loss terms over an interval and over the epoch, and the pace."""

    def __init__(self, run: Run, epoch: int) -> None:
        names = list(run.objective.weights)
        self._run = run
        self._names = names
        self._interval = torch.zeros(len(names), dtype=torch.float64, device=run.process.device)
        self._epoch = torch.zeros_like(self._interval)
        self._num_interval = self._num_epoch = self._num_steps = 0
        self._norm = 0.0
        self._started = time.monotonic()
        epochs_left = run.experiment.training_config.max_epoch - epoch
        self._num_left = epochs_left * len(run.train_set)

    def add(self, loss: Loss, norm: Tensor, num_utterances: int) -> None:
        """Count one step; terms are this process's share of a mean over ``num_utterances``."""
        values = [loss.terms[name].double() for name in self._names]
        self._interval += torch.stack(values) * num_utterances
        self._num_interval += num_utterances
        self._num_steps += 1
        self._norm += float(norm)

    def interval(self, rate: float) -> dict[str, float]:
        """Return the fields of a log line and start the next interval."""
        sums = add_over_peers(self._run.process, self._interval)
        now = time.monotonic()
        pace = self._num_interval / max(now - self._started, 1e-9)
        self._epoch += sums
        self._num_epoch += self._num_interval
        means = self._means(sums, self._num_interval)
        row = {
            **means,
            "loss": self._run.objective.weigh(means),
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
        means = self._means(self._epoch, self._num_epoch)
        named = {f"train_{name}": value for name, value in means.items()}
        return {**named, "train_loss": self._run.objective.weigh(means)}

    def _means(self, sums: Tensor, num: int) -> dict[str, float]:
        return {n: v / num for n, v in zip(self._names, sums.tolist(), strict=True)}
