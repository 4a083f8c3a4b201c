"""What a distillation step takes on this machine: real steps on random data."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wekws.dataset.batch import Batch
from wekws.distill.objective import Objective
from wekws.model.model import KwsModel
from wekws.train.distributed import Process
from wekws.train.learning_rate import LearningRate
from wekws.train.session import make_optimizer
from wekws.train.step import Run, forward_loss, hear, step_generator, step_size
from wekws.train.train_config import ExperimentConfig

NUM_LABELS = 4
# Progress of the training, where schedules and stages usually have every term in use.
HALFWAY = 0.5


def seconds_per_utterance(
    experiment: ExperimentConfig,
    teacher: KwsModel,
    durations_s: Sequence[float],
    device: torch.device,
    *,
    repeats: int = 3,
) -> float:
    """Return the wall time of a whole optimiser step, divided by its utterances.

    Teacher and student have the configured sizes; what they hear is noise as long as utterances
    drawn from ``durations_s``. SpecAugment, both passes, loss, backward, clip and optimiser: all
    but the reading of features and a discriminator's own step. The least of ``repeats`` steps
    after one that is not counted: what else the machine does should not count either.
    """
    run = _run_without_data(experiment, teacher, device)
    batch = random_batch(experiment, durations_s, step_size(run))
    times = []
    for index in range(1 + repeats):
        began = time.perf_counter()
        _step(run, batch, index)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:]) / len(batch.keys)


def random_batch(experiment: ExperimentConfig, durations_s: Sequence[float], num: int) -> Batch:
    """Return ``num`` utterances of noise, their durations drawn from the given ones."""
    config, rng = experiment.dataset_conf, np.random.default_rng(0)
    hop_s = config.fbank_conf.frame_shift / 1000
    drawn = rng.choice(np.asarray(durations_s), size=num)
    lengths = torch.from_numpy((drawn / hop_s).astype(np.int64).clip(min=1))
    num_bins = config.fbank_conf.num_mel_bins
    feats = torch.randn(
        num, int(lengths.max()), num_bins, generator=torch.Generator().manual_seed(0)
    )
    # Labels that every utterance has frames for.
    num_labels = (-(-lengths // config.frame_skip) // 2).clamp(max=NUM_LABELS)
    labels = torch.from_numpy(rng.integers(1, experiment.model.output_dim, (num, NUM_LABELS)))
    return Batch(
        keys=[f"noise{i}" for i in range(num)],
        feats=feats,
        feat_lengths=lengths,
        labels=labels,
        label_lengths=num_labels,
        is_keyword=torch.zeros(num, dtype=torch.bool),
        num_global=num,
    )


def _run_without_data(experiment: ExperimentConfig, teacher: KwsModel, device: torch.device) -> Run:
    cmvn = (teacher.global_cmvn.mean, teacher.global_cmvn.istd)
    student = KwsModel(experiment.model, cmvn).to(device)
    teacher = teacher.to(device).requires_grad_(False).eval()
    configs = (experiment.distill_conf, experiment.ctc_conf)
    objective = Objective.between(*configs, student, teacher, experiment.stage_plan).to(device)
    optimizer = make_optimizer(experiment, student, objective)
    return Run(
        process=Process(0, 1, device),
        experiment=experiment,
        model=student,
        teacher=teacher,
        objective=objective,
        optimizer=optimizer,
        learning_rate=LearningRate.of(optimizer, experiment),
        train_set=None,
        cv_set=None,
        model_dir=Path(),
        seed=0,
    )


def _step(run: Run, batch: Batch, index: int) -> None:
    config = run.experiment.training_config
    run.optimizer.zero_grad(set_to_none=True)
    heard = hear(run, batch, step_generator(run, 0, index), HALFWAY)
    for part in heard.parts(config.accum_grad):
        forward_loss(run, part, HALFWAY).total.backward()
    nn.utils.clip_grad_norm_(run.parameters, config.grad_clip)
    run.optimizer.step()
