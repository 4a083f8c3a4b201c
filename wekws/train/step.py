"""From a batch to a loss, in training and in the cv pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wekws.dataset.augment import spec_augment
from wekws.dataset.features import expand_context
from wekws.dataset.loader import Batch, SpeechDataset, batches, epoch_plan
from wekws.distill.objective import Loss, Objective
from wekws.distill.taps import Output, forward_tapped
from wekws.train.distributed import Process, add_over_peers
from wekws.train.ema import WeightAverage
from wekws.train.experiment import ExperimentConfig
from wekws.train.learning_rate import LearningRate
from wekws.train.metrics import token_errors


@dataclass(kw_only=True)
class Run:
    """Everything one training run is made of.

    teacher: None for plain CTC. start_epoch: the first one still to be trained.
    step: optimiser steps done. use_bf16: matrix products in bfloat16, losses in float32.
    average: of the weights, where one is kept.
    """

    process: Process
    experiment: ExperimentConfig
    model: nn.Module
    teacher: nn.Module | None
    objective: Objective
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    train_set: SpeechDataset
    cv_set: SpeechDataset
    model_dir: Path
    seed: int
    use_bf16: bool = False
    average: WeightAverage | None = None
    start_epoch: int = 0
    step: int = 0

    @property
    def kept_model(self) -> nn.Module:
        """The model that cv passes hear and checkpoints hold: the average, where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that the optimiser moves: the student's, then the objective's adapters."""
        modules = (self.model, self.objective)
        return [p for module in modules for p in module.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Heard:
    """What a step is computed from, on the run's device.

    student, teacher: (B, T, D) model input, one tensor unless the teacher hears a clean view.
    lengths, label_lengths: (B,). labels: (B, L). num_global: utterances of the whole step.
    """

    student: Tensor
    teacher: Tensor
    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor
    num_global: int

    def parts(self, num: int) -> Iterator["Heard"]:
        """Yield the utterances in at most ``num`` parts of about the same number."""
        tensors = (self.student, self.teacher, self.lengths, self.labels, self.label_lengths)
        for part in zip(*(tensor.chunk(num) for tensor in tensors), strict=True):
            yield Heard(*part, self.num_global)


def step_generator(run: Run, epoch: int, index: int) -> torch.Generator:
    """Return the source of one step's random masks: a function of its place in the run."""
    place = np.random.SeedSequence([run.seed, epoch, index, run.process.rank])
    return torch.Generator().manual_seed(int(place.generate_state(1, np.uint64)[0] >> 1))


def front_end(run: Run, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return model input (B, T, D) and lengths (B,) for a batch on the run's device.

    generator: source of SpecAugment's masks; None leaves the features as they are.
    """
    config = run.experiment.dataset_conf
    feats = batch.feats
    if generator is not None and config.spec_aug:
        # Filled with the mean, which is 0 once normalised; 0 in raw log-mel would be a loud click.
        num_bins = feats.shape[2]
        neutral = run.model.global_cmvn.mean[:num_bins]
        feats = spec_augment(feats, batch.feat_lengths, config.spec_aug_conf, generator, neutral)
    left, right = config.context.left, config.context.right
    return expand_context(feats, batch.feat_lengths, left, right, config.frame_skip)


def hear(run: Run, batch: Batch, generator: torch.Generator | None) -> Heard:
    """Return what student and teacher hear of a batch on the run's device."""
    student, lengths = front_end(run, batch, generator)
    teacher = student
    hears_apart = run.objective.config.teacher_view == "clean" and generator is not None
    if run.teacher is not None and hears_apart:
        teacher, _ = front_end(run, batch, None)
    return Heard(student, teacher, lengths, batch.labels, batch.label_lengths, batch.num_global)


def forward(
    run: Run, model: nn.Module, heard: Heard, *, use_teacher: bool
) -> tuple[Output, Output | None]:
    """Return what ``model`` makes of its input, and what the teacher does."""
    objective, taught = run.objective, None
    paths = objective.student_paths if use_teacher else ()
    with torch.autocast(run.process.device.type, dtype=torch.bfloat16, enabled=run.use_bf16):
        output = forward_tapped(model, heard.student, heard.lengths, paths)
        if use_teacher:
            with torch.no_grad():
                taught = forward_tapped(
                    run.teacher, heard.teacher, heard.lengths, objective.teacher_paths
                )
    return output, taught


def forward_loss(run: Run, heard: Heard, progress: float) -> Loss:
    """Return the loss of a batch, or of a part of it.

    progress: share of the training that is done, 0 to 1.
    """
    student, teacher = forward(run, run.model, heard, use_teacher=run.teacher is not None)
    targets = (heard.lengths, heard.labels, heard.label_lengths)
    return run.objective(student, teacher, *targets, heard.num_global, progress)


@torch.no_grad()
def evaluate(run: Run, model: nn.Module) -> dict[str, float]:
    """Return a cv pass's figures for ``model`` (the student, or the teacher itself).

    cv_loss: CTC, nats per utterance. cv_kd and so on: the distillation terms, where there is a
    teacher, at the temperature of the end of training, so that epochs compare.
    cv_accuracy: 1 - token errors / tokens over all utterances; cv_keyword_accuracy: over those
    that hold a keyword, since a tiny model's general accuracy means little.
    """
    was_training = model.training
    model.eval()
    taught = () if model is run.teacher else run.objective.taught
    totals = torch.zeros(6 + len(taught), dtype=torch.float64, device=run.process.device)
    for batch in own_batches(run, run.cv_set):
        totals += _batch_totals(run, model, batch.to(run.process.device), taught)
    model.train(was_training)
    totals = add_over_peers(run.process, totals)
    num, ctc, errors, tokens, keyword_errors, keyword_tokens, *distances = totals.tolist()
    figures = {"cv_loss": ctc / num}
    for name, distance in zip(taught, distances, strict=True):
        figures[f"cv_{name}"] = distance / num
    figures["cv_accuracy"] = 1.0 - errors / max(tokens, 1.0)
    if keyword_tokens:
        figures["cv_keyword_accuracy"] = 1.0 - keyword_errors / keyword_tokens
    return figures


def own_batches(run: Run, data_set: SpeechDataset, epoch: int | None = None) -> Iterator[Batch]:
    """Return this process's share of a set: as training hears it in ``epoch``, or in cv order.

    A training batch is that of a whole optimiser step, however many parts it is computed in.
    """
    config = run.experiment.dataset_conf
    is_training = epoch is not None
    return batches(
        data_set,
        step_size(run) if is_training else config.batch_conf.batch_size,
        epoch=epoch or 0,
        seed=run.seed,
        rank=run.process.rank,
        world_size=run.process.world_size,
        shuffle=is_training and config.shuffle,
        pin_memory=run.process.device.type == "cuda",
    )


def step_size(run: Run) -> int:
    """Return the number of utterances of one optimiser step."""
    accum_grad = run.experiment.training_config.accum_grad
    return run.experiment.dataset_conf.batch_conf.batch_size * accum_grad


def num_steps(run: Run, epoch: int) -> int:
    """Return the number of optimiser steps of an epoch."""
    config, world_size = run.experiment.dataset_conf, run.process.world_size
    plan = epoch_plan(run.train_set, step_size(run), epoch, run.seed, world_size, config.shuffle)
    return len(plan)


def _batch_totals(run: Run, model: nn.Module, batch: Batch, taught: tuple[str, ...]) -> Tensor:
    heard = hear(run, batch, None)
    student, teacher = forward(run, model, heard, use_teacher=bool(taught))
    targets = (heard.lengths, batch.labels, batch.label_lengths)
    terms = run.objective.terms(student, teacher, *targets, progress=1.0)
    errors = token_errors(student.logits, *targets)
    tokens, is_keyword = batch.label_lengths, batch.is_keyword
    counts = [
        terms["ctc"].new_zeros(()) + len(batch.keys),
        terms["ctc"],
        errors.sum(),
        tokens.sum(),
        (errors * is_keyword).sum(),
        (tokens * is_keyword).sum(),
        *(terms[name] for name in taught),
    ]
    return torch.stack([count.double() for count in counts])
