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
from wekws.distill.ensemble import weights_of
from wekws.distill.loss import Loss, add_losses
from wekws.errors import DataError
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train.distributed import add_gradients
from wekws.train.epoch_checkpoint import save_epoch, save_final
from wekws.train.gradients import GradientProbe
from wekws.train.monitor import LayerNorms, watch
from wekws.train.running_means import Meter
from wekws.train.stage_switch import begin_epoch, epoch_notes
from wekws.train.step import (
    Heard,
    Run,
    evaluate,
    forward_loss,
    hear,
    listen,
    num_steps,
    own_batches,
    step_generator,
)
from wekws.train.teacher_check import Confidences, announce, label_figures
from wekws.train.teachers import weigh


def fit(run: Run) -> None:
    """Train from ``run.start_epoch`` to the last epoch.

    Before the first step of a fresh run comes a cv pass (epoch -1), so that what the
    initialisation brought is a number.
    Raises: DataError naming step and utterances if a loss or gradient is not finite.
    """
    max_epoch = run.experiment.training_config.max_epoch
    last_epoch = run.start_epoch - 1 if run.start_epoch else -2
    records = MetricsWriter(run.model_dir, last_epoch=last_epoch, is_first=run.process.is_first)
    if run.start_epoch == 0:
        _record_start(run, records)
    for epoch in range(run.start_epoch, max_epoch):
        started = time.monotonic()
        begin_epoch(run, epoch, records)
        trained = _train_epoch(run, epoch, records)
        figures = {
            "lr": run.learning_rate.current,
            **evaluate(run, run.kept_model),
            **trained,
        }
        run.learning_rate.after_epoch(figures["cv_loss"])
        figures |= epoch_notes(run, epoch)
        figures["seconds"] = round(time.monotonic() - started, 3)
        records.write("cv", run.step, {"epoch": epoch, **figures})
        watch(records, run.step)
        if run.process.is_first:
            save_epoch(run.model_dir, epoch, run.kept_model, figures, _state(run))
    if run.process.is_first:
        save_final(run.model_dir, max_epoch - 1)
    records.close()


def _record_start(run: Run, records: MetricsWriter) -> None:
    """Write cv figures before the first step, and how far a transplant brought the student."""
    rows = {"epoch": -1}
    frame_skip = run.experiment.dataset_conf.frame_skip
    records.write("labels", 0, {**rows, **label_figures(run.cv_set, frame_skip)})
    if run.teacher is not None:
        weigh(run, records)
        confidences = Confidences(run.cv_set)
        teacher = evaluate(run, run.teacher, confidences)
        teacher["confidences"] = confidences.figures(run.process)
        records.write("teacher", 0, {**rows, **teacher})
        if run.process.is_first:
            announce(teacher)
    student = evaluate(run, run.kept_model)
    records.write("cv", 0, {**rows, **student})
    if run.random is None:
        return
    start, end = evaluate(run, run.random)["cv_loss"], teacher["cv_loss"]
    figures = {"random": start, "transplant": student["cv_loss"], "teacher": end}
    if start > end:
        figures["gap_closed"] = (start - student["cv_loss"]) / (start - end)
    records.write("start", 0, {**rows, **figures})


def _state(run: Run) -> dict:
    """Return what a resume needs beside the epoch's weights; only here live adapters and rivals."""
    state = {
        "step": run.step,
        "optimizer": run.optimizer.state_dict(),
        "learning_rate": run.learning_rate.state_dict(),
        "objective": run.objective.state_dict(),
        "teacher_weights": weights_of(run.teacher),
    }
    if run.rival is not None:
        state["rival"] = run.rival.state_dict()
    if run.average is not None:
        state["raw_model"] = run.model.state_dict()
    return state


def _train_epoch(run: Run, epoch: int, records: MetricsWriter) -> dict[str, float]:
    """Train one epoch; return each term's mean over its utterances."""
    config = run.experiment.training_config
    total = num_steps(run, epoch)
    run.model.train()
    meter, layers = Meter(run, epoch), LayerNorms(run.model, run.objective)
    is_quiet = not (run.process.is_first and sys.stderr.isatty())
    own = own_batches(run, run.train_set, epoch)
    bar = tqdm(own, total=total, desc=f"epoch {epoch}", disable=is_quiet, leave=False)
    for index, batch in enumerate(bar):
        rate = run.learning_rate.before_step(epoch + (index + 1) / total)
        progress = (epoch + index / total) / config.max_epoch
        probe = _due_probe(run)
        heard = hear(run, batch, step_generator(run, epoch, index), progress)
        loss = _backward(run, heard, progress, probe)
        add_gradients(run.process, run.parameters)
        is_due = (index + 1) % config.log_interval == 0 or index + 1 == total
        if is_due:
            layers.look()
        norm = nn.utils.clip_grad_norm_(run.parameters, config.grad_clip)
        _require_finite(loss, norm, epoch, index, batch)
        run.optimizer.step()
        run.step += 1
        if run.average is not None:
            run.average.update(run.model, run.step)
        meter.add(loss, norm, batch.num_global)
        if is_due:
            records.write("step", run.step, {"epoch": epoch, **meter.interval(rate, progress)})
        if probe is not None:
            row = {"epoch": epoch, **probe.figures(run.process)}
            records.write("gradient", run.step, row)
    records.write("layers", run.step, {"epoch": epoch, **layers.figures()})
    return meter.epoch_means()


def _due_probe(run: Run) -> GradientProbe | None:
    interval = run.experiment.training_config.gradient_interval
    return GradientProbe(run.model) if interval and run.step % interval == 0 else None


def _backward(run: Run, heard: Heard, progress: float, probe: GradientProbe | None) -> Loss:
    """Leave the gradient of this process's share of the step, which comes part by part."""
    run.optimizer.zero_grad(set_to_none=True)
    losses = []
    parts = list(heard.parts(run.experiment.training_config.accum_grad))
    judged, known = {}, None
    if run.rival is not None and "adversarial" in run.objective.weights(progress):
        # One part is heard once for both sides; of several, memory holds one at a time.
        known = listen(run, parts[0], progress) if len(parts) == 1 else None
        judged = run.rival.step(run, parts, known)
    for part in parts:
        loss = forward_loss(run, part, progress, known)
        if probe is not None:
            probe.add(loss.weighted)
        loss.total.backward()
        losses.append(loss)
    return add_losses(losses, judged)


def _require_finite(loss: Loss, norm: Tensor, epoch: int, index: int, batch: Batch) -> None:
    if not (torch.isfinite(norm) and torch.isfinite(loss.total)):
        raise DataError(
            f"epoch {epoch}, step {index}: the loss or its gradient is not finite; the weights "
            f"were left as they were. Utterances of the step: {', '.join(batch.keys)}"
        )
