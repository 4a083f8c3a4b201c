"""From a batch to a loss, in training and in the cv pass."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wekws.dataset.augment import spec_augment
from wekws.dataset.features import expand_context
from wekws.dataset.loader import Batch, SpeechDataset, batches, epoch_plan
from wekws.distill.loss import Loss, Targets
from wekws.distill.objective import Objective
from wekws.distill.taps import Outputs, forward_tapped
from wekws.train.distributed import Process, add_over_peers
from wekws.train.ema import WeightAverage
from wekws.train.greedy_ctc import (
    NUM_BUCKETS,
    edit_distances,
    frame_counts,
    greedy_tokens,
    output_histogram,
)
from wekws.train.learning_rate import LearningRate
from wekws.train.teacher_check import Confidences
from wekws.train.train_config import ExperimentConfig

if TYPE_CHECKING:
    from wekws.train.discriminator_step import Rival


@dataclass(kw_only=True)
class Run:
    """Everything one training run is made of.

    teacher: None for plain CTC. start_epoch: the first one still to be trained.
    random: the student before its transplant, to measure that against; None: no transplant.
    step: optimiser steps done. use_bf16: matrix products in bfloat16, losses in float32.
    average: of the weights, where one is kept. rival: moves the discriminators, where there are.
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
    random: nn.Module | None = None
    use_bf16: bool = False
    average: WeightAverage | None = None
    rival: "Rival | None" = None
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

    student: (B, T, D) model input. teacher: the same tensor, unless it hears a clean view.
    again: the student's second view; the first one again where no term wants it.
    lengths, label_lengths: (B,). labels: (B, L). num_global: utterances of the whole step.
    """

    student: Tensor
    teacher: Tensor
    again: Tensor
    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor
    num_global: int

    @property
    def targets(self) -> Targets:
        """What the outputs are held against."""
        return Targets(self.lengths, self.labels, self.label_lengths)

    def parts(self, num: int) -> Iterator["Heard"]:
        """Yield the utterances in at most ``num`` parts of about the same number."""
        *tensors, num_global = (getattr(self, f.name) for f in fields(self))
        for part in zip(*(tensor.chunk(num) for tensor in tensors), strict=True):
            yield Heard(*part, num_global)


def step_generator(run: Run, epoch: int, index: int) -> torch.Generator:
    """Return the source of one step's random masks: a function of its place in the run."""
    place = np.random.SeedSequence([run.seed, epoch, index, run.process.rank])
    return torch.Generator().manual_seed(int(place.generate_state(1, np.uint64)[0] >> 1))


def front_end(
    run: Run, batch: Batch, frame_counts: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return model input (B, T, D) and lengths (B,) for a batch on the run's device.

    frame_counts: the batch's ``feat_lengths``, on the CPU.
    generator: source of SpecAugment's masks; None leaves the features as they are.
    """
    config = run.experiment.dataset_conf
    feats = batch.feats
    if generator is not None and config.spec_aug:
        # Filled with the mean, which is 0 once normalised; 0 in raw log-mel would be a loud click.
        num_bins = feats.shape[2]
        neutral = run.model.global_cmvn.mean[:num_bins]
        conf = config.spec_aug_conf
        feats = spec_augment(feats, frame_counts, config=conf, generator=generator, fill=neutral)
    return expand_context(feats, batch.feat_lengths, config.front_end)


def hear(run: Run, batch: Batch, generator: torch.Generator | None, progress: float = 0.0) -> Heard:
    """Return what student and teacher hear of a loader's batch, on the run's device.

    generator: source of SpecAugment's masks; None leaves the features as they are, for all.
    progress: share of the training that is done, 0 to 1; what no term then wants is not made.
    """
    objective, frame_counts = run.objective, batch.feat_lengths  # still on the CPU
    batch = batch.to(run.process.device)
    student, lengths = front_end(run, batch, frame_counts, generator)
    teacher = again = student
    if generator is not None:
        if objective.wants_second_view(progress):
            again, _ = front_end(run, batch, frame_counts, generator)
        is_clean = objective.config.teacher_view == "clean"
        if is_clean and objective.wants_teacher(progress):
            teacher, _ = front_end(run, batch, frame_counts, None)
    labels = (batch.labels, batch.label_lengths)
    return Heard(student, teacher, again, lengths, *labels, batch.num_global)


def forward(
    run: Run, model: nn.Module, heard: Heard, *, use_teacher: bool, use_again: bool
) -> Outputs:
    """Return what ``model`` makes of its input, what the teacher does, and a second view's."""
    objective, teacher, again = run.objective, None, None
    paths = () if model is run.teacher else objective.student_paths
    with torch.autocast(run.process.device.type, dtype=torch.bfloat16, enabled=run.use_bf16):
        student = forward_tapped(model, heard.student, heard.lengths, paths)
        if use_again:
            again = forward_tapped(model, heard.again, heard.lengths, ())
        if use_teacher:
            with torch.no_grad():
                teacher = forward_tapped(
                    run.teacher, heard.teacher, heard.lengths, objective.teacher_paths
                )
    return Outputs(student, teacher, again)


def listen(run: Run, heard: Heard, progress: float) -> Outputs:
    """Return what all who are wanted at this progress, 0 to 1, make of a step or a part of it."""
    objective = run.objective
    return forward(
        run,
        run.model,
        heard,
        use_teacher=objective.wants_teacher(progress),
        use_again=objective.wants_second_view(progress),
    )


def forward_loss(run: Run, heard: Heard, progress: float, outputs: Outputs | None = None) -> Loss:
    """Return the loss of a batch, or of a part of it.

    progress: share of the training that is done, 0 to 1.
    outputs: what ``listen`` made of it, where that is known already.
    """
    outputs = listen(run, heard, progress) if outputs is None else outputs
    return run.objective(outputs, heard.targets, heard.num_global, progress)


@torch.no_grad()
def evaluate(
    run: Run, model: nn.Module, confidences: Confidences | None = None
) -> dict[str, float]:
    """Return a cv pass's figures for ``model`` (the student, or the teacher itself).

    cv_loss: CTC, nats per utterance. cv_kd and so on: the distillation terms, where there is a
    teacher, at the temperature of the end of training, so that epochs compare.
    cv_accuracy: 1 - token errors / tokens over all utterances; cv_keyword_accuracy: over those
    that hold a keyword, since a tiny model's general accuracy means little.
    cv_blank_share, cv_filler_share: of the frames, those whose best token is blank or filler.
    cv_same_output_share: of the utterances, those with the commonest greedy output.
    confidences: takes in the outputs of every batch.
    """
    was_training = model.training
    model.eval()
    run.objective.eval()
    # A second view is a matter of masks, and a cv pass has none; discriminators move.
    taught = tuple(n for n in run.objective.taught if n not in ("consistency", "adversarial"))
    taught = () if model is run.teacher else taught
    size = NUM_BUCKETS + 9 + len(taught)
    totals = torch.zeros(size, dtype=torch.float64, device=run.process.device)
    for batch in own_batches(run, run.cv_set):
        totals += _batch_totals(run, model, batch, taught, confidences)
    model.train(was_training)
    run.objective.train()
    totals = add_over_peers(run.process, totals)
    outputs, (num, ctc, *totals) = totals[:NUM_BUCKETS], totals[NUM_BUCKETS:].tolist()
    errors, tokens, keyword_errors, keyword_tokens, frames, blanks, fillers, *distances = totals
    figures = {"cv_loss": ctc / num}
    for name, distance in zip(taught, distances, strict=True):
        figures[f"cv_{name}"] = distance / num
    figures["cv_accuracy"] = 1.0 - errors / max(tokens, 1.0)
    if keyword_tokens:
        figures["cv_keyword_accuracy"] = 1.0 - keyword_errors / keyword_tokens
    shares = {"cv_blank_share": blanks / frames, "cv_filler_share": fillers / frames}
    return {**figures, **shares, "cv_same_output_share": float(outputs.max()) / num}


def own_batches(run: Run, data_set: SpeechDataset, epoch: int | None = None) -> Iterator[Batch]:
    """Return this process's share of a set: as training hears it in ``epoch``, or in cv order.

    A training batch is that of a whole optimiser step, however many parts it is computed in.
    """
    config = run.experiment.dataset_conf
    is_training = epoch is not None
    return batches(
        data_set,
        batch_size=step_size(run) if is_training else config.batch_conf.batch_size,
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
    plan = epoch_plan(
        run.train_set,
        batch_size=step_size(run),
        epoch=epoch,
        seed=run.seed,
        world_size=run.process.world_size,
        shuffle=run.experiment.dataset_conf.shuffle,
    )
    return len(plan)


def _batch_totals(
    run: Run,
    model: nn.Module,
    batch: Batch,
    taught: tuple[str, ...],
    confidences: Confidences | None,
) -> Tensor:
    heard = hear(run, batch, None)
    outputs = forward(run, model, heard, use_teacher=bool(taught), use_again=False)
    terms = run.objective.terms(outputs, heard.targets, progress=1.0)
    tokens, is_keyword = heard.label_lengths, batch.is_keyword.to(run.process.device)
    logits = outputs.student.logits
    if confidences is not None:
        confidences.add(batch.keys, logits, heard.lengths)
    hypotheses, hypothesis_lengths = greedy_tokens(logits, heard.lengths)
    errors = edit_distances(hypotheses, hypothesis_lengths, heard.labels, tokens)
    counts = [
        terms["ctc"].new_zeros(()) + len(batch.keys),
        terms["ctc"],
        errors.sum(),
        tokens.sum(),
        (errors * is_keyword).sum(),
        (tokens * is_keyword).sum(),
        *frame_counts(logits, heard.lengths),
        *(terms[name] for name in taught),
    ]
    histogram = output_histogram(hypotheses).double()
    return torch.cat([histogram, torch.stack([count.double() for count in counts])])
