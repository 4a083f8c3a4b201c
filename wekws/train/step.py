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
from wekws.train.distributed import Process, add_over_peers
from wekws.train.experiment import ExperimentConfig
from wekws.train.learning_rate import LearningRate
from wekws.train.metrics import token_errors


@dataclass(kw_only=True)
class Run:
    """Everything one training run is made of.

    teacher: None for plain CTC. start_epoch: the first one still to be trained.
    random: the student before its transplant, to measure that against; None: no transplant.
    step: optimiser steps done. use_bf16: matrix products in bfloat16, losses in float32.
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
    start_epoch: int = 0
    step: int = 0


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


def forward_loss(run: Run, batch: Batch, inputs: Tensor, lengths: Tensor) -> Loss:
    """Return the loss of one batch on the run's device."""
    device_type = run.process.device.type
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=run.use_bf16):
        logits = run.model(inputs, lengths)
        teacher_logits = None
        if run.teacher is not None:
            with torch.no_grad():
                teacher_logits = run.teacher(inputs, lengths)
    return run.objective(
        logits, teacher_logits, lengths, batch.labels, batch.label_lengths, batch.num_global
    )


@torch.no_grad()
def evaluate(run: Run, model: nn.Module) -> dict[str, float]:
    """Return a cv pass's figures for ``model`` (the student, or the teacher itself).

    cv_loss: CTC, nats per utterance. cv_kd: the distillation term, where there is a teacher.
    cv_accuracy: 1 - token errors / tokens over all utterances; cv_keyword_accuracy: over those
    that hold a keyword, since a tiny model's general accuracy means little.
    """
    was_training = model.training
    model.eval()
    has_kd = run.teacher is not None and model is not run.teacher
    totals = torch.zeros(7, dtype=torch.float64, device=run.process.device)
    for batch in own_batches(run, run.cv_set):
        totals += _batch_totals(run, model, batch.to(run.process.device), has_kd)
    model.train(was_training)
    totals = add_over_peers(run.process, totals)
    num, ctc, kd, errors, tokens, keyword_errors, keyword_tokens = totals.tolist()
    figures = {"cv_loss": ctc / num}
    if has_kd:
        figures["cv_kd"] = kd / num
    figures["cv_accuracy"] = 1.0 - errors / max(tokens, 1.0)
    if keyword_tokens:
        figures["cv_keyword_accuracy"] = 1.0 - keyword_errors / keyword_tokens
    return figures


def own_batches(run: Run, data_set: SpeechDataset, epoch: int | None = None) -> Iterator[Batch]:
    """Return this process's share of a set: as training hears it in ``epoch``, or in cv order."""
    config = run.experiment.dataset_conf
    return batches(
        data_set,
        config.batch_conf.batch_size,
        epoch=epoch or 0,
        seed=run.seed,
        rank=run.process.rank,
        world_size=run.process.world_size,
        shuffle=epoch is not None and config.shuffle,
        pin_memory=run.process.device.type == "cuda",
    )


def num_steps(run: Run, epoch: int) -> int:
    """Return the number of optimiser steps of an epoch."""
    config, world_size = run.experiment.dataset_conf, run.process.world_size
    size = config.batch_conf.batch_size
    return len(epoch_plan(run.train_set, size, epoch, run.seed, world_size, config.shuffle))


def _batch_totals(run: Run, model: nn.Module, batch: Batch, has_kd: bool) -> Tensor:
    inputs, lengths = front_end(run, batch, None)
    device_type = run.process.device.type
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=run.use_bf16):
        logits = model(inputs, lengths).float()
        teacher_logits = run.teacher(inputs, lengths).float() if has_kd else None
    terms = run.objective.terms(logits, teacher_logits, lengths, batch.labels, batch.label_lengths)
    errors = token_errors(logits, lengths, batch.labels, batch.label_lengths)
    tokens, is_keyword = batch.label_lengths, batch.is_keyword
    zero = logits.new_zeros(())
    counts = [
        zero + len(batch.keys),
        terms["ctc"],
        terms.get("kd", zero),
        errors.sum(),
        tokens.sum(),
        (errors * is_keyword).sum(),
        (tokens * is_keyword).sum(),
    ]
    return torch.stack([count.double() for count in counts])
