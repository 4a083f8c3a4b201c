"""The training loop, the same with and without a teacher.

``fit`` is the loop over epochs; below it are the epoch, the step, the loss, and the cv pass.
Nothing random is carried from step to step: the order of an epoch and the masks of a step come
from (seed, epoch, step) and from the state of the hooks, so that a run resumed at the start of an
epoch repeats the uninterrupted run, to the last bit on one CPU.
"""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wekws.dataset.batch import Batch
from wekws.dataset.loader import batches, epoch_plan
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.distill.distill_rules import ALL_RULES
from wekws.distill.hook import TrainingHook
from wekws.distill.method import LossTargets, LossValue
from wekws.distill.objective import Objective, add_losses
from wekws.distill.taps import StepOutputs, forward_tapped
from wekws.distill.transplant import Sample
from wekws.distill.transplant.sample import draw_sample
from wekws.model.model import KwsModel
from wekws.runlog.fields import Kind
from wekws.runlog.health import health_changes
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train.cv_figures import CvSums
from wekws.train.distributed import Process, add_gradients, copy_from_first, max_over_peers
from wekws.train.epoch_checkpoint import save_epoch, save_final
from wekws.train.finite_check import FiniteCheck, Step
from wekws.train.gradient_probe import GradientProbe
from wekws.train.layer_norms import LayerNorms
from wekws.train.learning_rate import LearningRate
from wekws.train.optimizer import update_groups
from wekws.train.running_means import RunningMeans
from wekws.train.step_inputs import InputMaker, StepInputs, step_generator
from wekws.train.teacher_check import KeywordConfidences, label_figures, log_teacher
from wekws.train.train_config import TrainConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepParts:
    """The parts of a run that a step needs, apart from its data."""

    process: Process
    """This process among its peers, and its device."""
    config: TrainConfig
    """The whole configuration."""
    model: KwsModel
    """The student (or, without a teacher, the model) in training."""
    teacher: KwsModel | None
    """The frozen teacher; None for plain CTC."""
    objective: Objective
    """The loss, with adapters and heads."""
    optimizer: torch.optim.Optimizer
    """Trains the model and the objective's adapters."""
    seed: int
    """Seed of order and masks."""
    use_bf16: bool
    """Matrix products in bfloat16, losses in float32."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that the optimiser trains: the student's parameters, then the objective's."""
        modules = (self.model, self.objective)
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    @cached_property
    def input_maker(self) -> InputMaker:
        """Makes model input of the batches."""
        config, cmvn = self.config.dataset_conf, self.model.global_cmvn
        assert cmvn is not None, "a model in training normalises its features"
        neutral = cmvn.mean[: config.fbank_conf.num_mel_bins]
        return InputMaker(config=config, neutral=neutral, device=self.process.device)


@dataclass(kw_only=True)
class Counters:
    """Counters of a run; all else in it is built once."""

    start_epoch: int = 0
    """First epoch still to be trained."""
    num_steps: int = 0
    """Optimiser steps done."""


@dataclass(frozen=True, kw_only=True)
class Run(StepParts):
    """Everything one training run is made of; see ``TrainingRun`` for what its hooks may use."""

    kept_model: KwsModel
    """The model that is scored and saved: ``model``, or a hook's average of it."""
    hooks: Sequence[TrainingHook]
    """Actions of methods in the loop, besides the loss."""
    learning_rate: LearningRate
    """Sets the optimiser's rate."""
    train_set: SpeechDataset
    """Training utterances."""
    cv_set: SpeechDataset
    """Dev utterances."""
    model_dir: Path
    """Folder of the run."""
    metrics: MetricsWriter
    """Writer of metrics.jsonl."""
    random_student: KwsModel | None
    """The student before its transplant, to measure that against; None without a transplant."""
    counters: Counters = field(default_factory=Counters)
    """Epoch and step."""

    @property
    def num_steps_done(self) -> int:
        """Optimiser steps since the start of the run."""
        return self.counters.num_steps

    @property
    def num_utterances(self) -> int:
        """Utterances of the training set."""
        return len(self.train_set)

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the whole learning-rate schedule by ``scale`` from here on."""
        self.learning_rate.scale = scale

    def update_optimizer_groups(self) -> None:
        """Let the optimiser train parameters that the model has gained; others keep their state."""
        update_groups(self.optimizer, self.config, self.model, self.objective)

    def cv_loss(self, model: KwsModel) -> float:
        """Return a model's CTC loss on the cv set, nats per utterance."""
        return evaluate(self, model, terms=())["cv_loss"]

    def draw_sample(self, model: KwsModel, num_batches: int) -> Sample:
        """Return a sample of the training set, normalised as ``model`` (on the CPU) does."""
        return draw_sample(model, self.train_set, num_batches=num_batches, seed=self.seed)

    def copy_from_first(self, model: nn.Module) -> None:
        """Give every process the weights of the first one."""
        copy_from_first(self.process, model)

    def max_over_peers(self, values: Tensor) -> Tensor:
        """Return the elementwise maximum of ``values`` over all processes."""
        return max_over_peers(self.process, values)

    def repeat_utterances(self, indices: Tensor) -> None:
        """Let these training utterances occur once more in each epoch from here on; (M,)."""
        self.train_set.repeated = indices.numpy()

    def log(self, kind: Kind, row: Mapping[str, Any]) -> None:
        """Write a row of ``metrics.jsonl``."""
        self.metrics.write(kind, self.counters.num_steps, dict(row))

    def state(self) -> dict[str, Any]:
        """Return what a resume needs beside the epoch's weights."""
        return {
            "step": self.counters.num_steps,
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "objective": self.objective.state_dict(),
            "hooks": {hook.name: state for hook in self.hooks if (state := hook.state(self))},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``; the epoch's weights are loaded already."""
        for hook in self.hooks:
            if hook.name in state["hooks"]:
                hook.restore(self, state["hooks"][hook.name])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.counters.start_epoch = state["epoch"] + 1
        self.counters.num_steps = state["step"]


def fit(run: Run) -> None:
    """Train from ``run.counters.start_epoch`` to the last epoch.

    Before the first step of a new run comes a cv pass (epoch -1), so that the effect of the
    initialisation is measured.
    Raises: DataError naming step and utterances if a loss or gradient is not finite.
    """
    max_epoch = run.config.training_config.max_epoch
    start_epoch = run.counters.start_epoch
    if start_epoch == 0:
        measure_start(run)
    for epoch in range(start_epoch, max_epoch):
        started = time.monotonic()
        for hook in run.hooks:
            hook.before_epoch(run, epoch)
        trained = train_epoch(run, epoch)
        for hook in run.hooks:
            hook.after_epoch(run, epoch)
        figures = {"lr": run.learning_rate.current, **evaluate(run, run.kept_model), **trained}
        run.learning_rate.after_epoch(figures["cv_loss"])
        notes = [hook.epoch_notes(epoch) for hook in run.hooks]
        row = {**figures, **{name: note for found in notes for name, note in found.items()}}
        row["seconds"] = round(time.monotonic() - started, 3)
        run.log("cv", {"epoch": epoch, **row})
        check_health(run)
        if run.process.is_first:
            save_epoch(run.model_dir, epoch, run.kept_model, row, run.state())
    if run.process.is_first:
        save_final(run.model_dir, max_epoch - 1)
    run.metrics.close()


def measure_start(run: Run) -> None:
    """Log cv figures before the first step, and how much of the gap a transplant has closed."""
    before: dict[str, Any] = {"epoch": -1}
    run.log("labels", {**before, **label_figures(run.cv_set, run.config.dataset_conf.frame_skip)})
    for hook in run.hooks:
        hook.before_training(run)
    teacher: dict[str, Any] = {}
    if run.teacher is not None:
        confidences = KeywordConfidences(run.cv_set)
        teacher |= evaluate(run, run.teacher, terms=(), confidences=confidences)
        teacher["confidences"] = confidences.figures(run.process)
        run.log("teacher", {**before, **teacher})
        if run.process.is_first:
            log_teacher(teacher)
    student = evaluate(run, run.kept_model)
    run.log("cv", {**before, **student})
    if run.random_student is None:
        return
    start, end = run.cv_loss(run.random_student), teacher["cv_loss"]
    figures = {"random": start, "transplant": student["cv_loss"], "teacher": end}
    if start > end:
        figures["gap_closed"] = (start - student["cv_loss"]) / (start - end)
    run.log("start", {**before, **figures})


def check_health(run: Run) -> None:
    """Log the problems that began or ended in the last epoch; warn once of one that began."""
    remedies = {rule.name: rule.remedy for rule in ALL_RULES}
    for row in health_changes(run.metrics.rows, ALL_RULES):
        run.log("health", row)
        if row["state"] == "began":
            remedy = remedies[row["problem"]]
            logger.warning("epoch %d: %s. %s", row["epoch"], row["text"], remedy)


def train_epoch(run: Run, epoch: int) -> dict[str, float]:
    """Train one epoch; return each term's mean over its utterances."""
    config = run.config.training_config
    steps = steps_of(run, epoch)
    total = len(steps)
    run.model.train()
    names = run.objective.active_terms(epoch / config.max_epoch)
    num_each = sum(map(len, steps))
    num_left = (config.max_epoch - epoch) * num_each
    means = RunningMeans(run.objective, names, process=run.process, num_utterances_left=num_left)
    layers, finite = LayerNorms(run.model, run.objective), FiniteCheck()
    is_quiet = not (run.process.is_first and sys.stderr.isatty())
    own_batches = training_batches(run, epoch)
    bar = tqdm(own_batches, total=total, desc=f"epoch {epoch}", disable=is_quiet, leave=False)
    for index, batch in enumerate(bar):
        rate = run.learning_rate.before_step(epoch + (index + 1) / total)
        progress = (epoch + index / total) / config.max_epoch
        is_probed = config.gradient_interval and run.num_steps_done % config.gradient_interval == 0
        probe = GradientProbe(run.model, run.objective.task_terms) if is_probed else None
        generator = step_generator(run.seed, epoch, index)
        loss = backward(run, step_inputs(run, batch, generator, progress), progress, probe)
        add_gradients(run.process, run.parameters)
        is_logged = (index + 1) % config.log_interval == 0 or index + 1 == total
        if is_logged:
            layers.measure()
        norm = nn.utils.clip_grad_norm_(run.parameters, config.grad_clip)
        finite.add(loss, norm, Step(epoch, index, batch, rate))
        run.optimizer.step()
        run.counters.num_steps += 1
        for hook in run.hooks:
            hook.after_step(run)
        means.add(loss, norm, batch.num_global)
        if is_logged:
            finite.require()
            run.log("step", {"epoch": epoch, **means.interval(rate, progress)})
        if probe is not None:
            run.log("gradient", {"epoch": epoch, **probe.figures(run.process)})
    run.log("layers", {"epoch": epoch, **layers.figures()})
    return means.epoch()


def step_inputs(
    parts: StepParts, batch: Batch, generator: torch.Generator, progress: float
) -> StepInputs:
    """Return the inputs of a training step; views that no active term needs are not made.

    progress: share of the training that is done, 0 to 1.
    """
    objective = parts.objective
    active = objective.active_terms(progress)
    return parts.input_maker.make(
        batch,
        generator,
        teacher_sees_masks=objective.teacher_sees_masks or not objective.needs_teacher(active),
        has_second_view=objective.needs_second_view(active),
    )


def backward(
    parts: StepParts, inputs: StepInputs, progress: float, probe: GradientProbe | None = None
) -> LossValue:
    """Compute the gradient of this process's share of a step; return the loss without graph."""
    parts.optimizer.zero_grad(set_to_none=True)
    pieces = list(inputs.parts(parts.config.training_config.accum_grad))
    counts: dict[str, Tensor] = {}
    known: StepOutputs | None = None
    if parts.objective.has_opponent(progress):
        # The outputs of a step in one piece serve both sides; of several pieces, memory holds one.
        known = run_models(parts, pieces[0], progress) if len(pieces) == 1 else None
        counts = train_opponents(parts, pieces, progress, known)
    losses = []
    for piece in pieces:
        outputs = known or run_models(parts, piece, progress)
        loss = parts.objective(outputs, piece.targets, inputs.num_global, progress)
        if probe is not None:
            probe.add(loss.weighted)
        loss.total.backward()
        losses.append(loss)
    return add_losses(losses, counts)


def train_opponents(
    parts: StepParts, pieces: Sequence[StepInputs], progress: float, known: StepOutputs | None
) -> dict[str, Tensor]:
    """Train the objective's opponents (discriminators) on a step, before the student's turn.

    known: outputs for the only piece; None: computed here, without gradients.
    """

    def outputs_by_piece() -> Iterator[tuple[StepOutputs, LossTargets]]:
        for piece in pieces:
            with torch.no_grad():
                outputs = known or run_models(parts, piece, progress)
            yield outputs, piece.targets

    return parts.objective.train_opponents(
        outputs_by_piece,
        pieces[0].num_global,
        progress,
        partial(add_gradients, parts.process),
    )


def run_models(parts: StepParts, inputs: StepInputs, progress: float) -> StepOutputs:
    """Return the outputs of student and teacher that the active terms need.

    progress: share of the training that is done, 0 to 1.
    """
    active = parts.objective.active_terms(progress)
    return forward_models(
        parts,
        parts.model,
        inputs,
        has_teacher=parts.objective.needs_teacher(active),
        has_second_view=parts.objective.needs_second_view(active),
    )


def forward_models(
    parts: StepParts,
    model: KwsModel,
    inputs: StepInputs,
    *,
    has_teacher: bool,
    has_second_view: bool = False,
    has_taps: bool = True,
) -> StepOutputs:
    """Run ``model`` as the student, and the teacher if it is needed.

    has_taps: whether to keep the inner features that the terms use.
    """
    objective, teacher, second_view = parts.objective, None, None
    paths = objective.student_paths if has_taps else ()
    device_type = parts.process.device.type
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=parts.use_bf16):
        student = forward_tapped(model, inputs.student, inputs.lengths, paths)
        if has_second_view:
            second_view = forward_tapped(model, inputs.second_view, inputs.lengths, ())
        if has_teacher:
            assert parts.teacher is not None, "a term needs a teacher that the run does not have"
            with torch.no_grad():
                teacher = forward_tapped(
                    parts.teacher, inputs.teacher, inputs.lengths, objective.teacher_paths
                )
    return StepOutputs(student, teacher, second_view)


@torch.no_grad()
def evaluate(
    run: Run,
    model: KwsModel,
    *,
    terms: Sequence[str] | None = None,
    confidences: KeywordConfidences | None = None,
) -> dict[str, float]:
    """Return a model's figures on the cv set, all processes together; see ``CvSums.figures``.

    terms: the loss terms to compute beside CTC, at the temperature of the end of training, so that
    epochs compare; None: all that cv passes can compute.
    confidences: collects the outputs of every batch.
    """
    names = run.objective.cv_terms if terms is None else tuple(terms)
    if terms is None and run.objective.needs_confidences:
        confidences = KeywordConfidences(run.cv_set)
    was_training = model.training
    model.eval()
    run.objective.eval()
    sums = CvSums(names, run.process.device)
    for batch in cv_batches(run):
        inputs = run.input_maker.make(batch)
        outputs = forward_models(
            run,
            model,
            inputs,
            has_teacher=run.objective.needs_teacher(names),
            has_taps=bool(names),
        )
        values = run.objective.terms(outputs, inputs.targets, 1.0, ("ctc", *names))
        if confidences is not None:
            scored = outputs.student.logits / model.config.score_temperature
            confidences.add(batch.keys, scored, inputs.lengths)
        is_keyword = batch.is_keyword.to(run.process.device)
        sums.add(outputs.student.logits, inputs, is_keyword, values)
    model.train(was_training)
    run.objective.train()
    figures = sums.figures(run.process)
    if terms is None and confidences is not None:
        figures |= confidences.miss_rates(run.process)
    return figures


def training_batches(run: Run, epoch: int) -> Iterator[Batch]:
    """Yield this process's share of an epoch.

    A batch is that of a whole optimiser step, however many parts it is computed in.
    """
    return batches(
        run.train_set,
        batch_size=run.config.step_size,
        epoch=epoch,
        seed=run.seed,
        rank=run.process.rank,
        world_size=run.process.world_size,
        shuffle=run.config.dataset_conf.shuffle,
        pin_memory=run.process.device.type == "cuda",
    )


def cv_batches(run: Run) -> Iterator[Batch]:
    """Yield this process's share of the cv set."""
    return batches(
        run.cv_set,
        batch_size=run.config.dataset_conf.batch_conf.batch_size,
        seed=run.seed,
        rank=run.process.rank,
        world_size=run.process.world_size,
        pin_memory=run.process.device.type == "cuda",
    )


def steps_of(run: Run, epoch: int) -> list[np.ndarray]:
    """Return the utterances of each optimiser step of an epoch, all processes together."""
    return epoch_plan(
        run.train_set,
        batch_size=run.config.step_size,
        epoch=epoch,
        seed=run.seed,
        world_size=run.process.world_size,
        shuffle=run.config.dataset_conf.shuffle,
    )
