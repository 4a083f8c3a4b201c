"""Time of a distillation step on this machine: real steps on random data."""

import dataclasses
import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from wekws.dataset.batch import Batch
from wekws.dataset.label_set import LabelSet
from wekws.dataset.vocabulary import BLANK_TOKEN, FILLER_TOKEN, Tokenizer, Vocabulary
from wekws.distill.embedding import EmbeddingConfig
from wekws.distill.methods import build_objective
from wekws.model.model import KwsModel
from wekws.train.distributed import Process
from wekws.train.loop import StepParts, backward, step_inputs
from wekws.train.optimizer import make_optimizer
from wekws.train.step_inputs import step_generator
from wekws.train.train_config import TrainConfig

NUM_LABELS = 4
# Progress of the training, where schedules and stages usually have every term in use.
HALFWAY = 0.5
_NUM_DRAWS = 200


def seconds_per_utterance(
    experiment: TrainConfig,
    teacher: KwsModel | None,
    durations_s: Sequence[float],
    device: torch.device,
    *,
    repeats: int = 3,
    num_processes: int = 1,
    most_utterances: int = 0,
    use_bf16: bool = False,
) -> float:
    """Return the wall time of a whole optimiser step, divided by its utterances.

    Teacher (None: plain CTC) and student have the configured sizes; their input is noise with
    durations drawn from ``durations_s``. A step is SpecAugment, both forward passes, loss,
    backward pass, clipping and optimiser; reading features is not part of it. Returned is the
    fastest of ``repeats`` steps after one that is not counted, and on one CPU thread its CPU time,
    so that other work on the machine has little effect.
    num_processes: processes of the training, which divide each batch.
    most_utterances: measure smaller batches than the configured ones; 0: do not.
    """
    # What is logged of a run does not concern these steps.
    logging.disable(logging.INFO)
    parts = _step_parts(experiment, teacher, device, use_bf16)
    logging.disable(logging.NOTSET)
    size = max(1, experiment.step_size // num_processes)
    size = min(size, most_utterances or size)
    batch = random_batch(experiment, durations_s, size)
    is_alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_alone else time.perf_counter
    times = []
    for index in range(1 + repeats):
        began = clock()
        _step(parts, batch, index)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return min(times[1:]) / len(batch.keys) / num_processes


def random_batch(experiment: TrainConfig, durations_s: Sequence[float], num: int) -> Batch:
    """Return ``num`` utterances of noise, their durations drawn from the given ones.

    As many are joined to a second one as in training. A batch is padded to its longest utterance:
    of several draws that one is taken whose longest is nearest to the average.
    """
    config, rng = experiment.dataset_conf, np.random.default_rng(0)
    hop_s = config.fbank_conf.frame_shift / 1000
    first, second = rng.choice(np.asarray(durations_s), size=(2, _NUM_DRAWS, num))
    draws = first + second * (rng.random((_NUM_DRAWS, num)) < config.join_prob)
    longest = draws.max(axis=1)
    drawn = draws[np.abs(longest - longest.mean()).argmin()]
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
        holds_keyword=(torch.arange(num) % 2 == 0)[:, None],
        indices=torch.arange(num),
        places=torch.arange(num),
        num_global=num,
    )


def _step_parts(
    config: TrainConfig, teacher: KwsModel | None, device: torch.device, use_bf16: bool
) -> StepParts:
    dim = config.model.input_dim
    student = KwsModel(config.model, (torch.zeros(dim), torch.ones(dim))).to(device)
    if teacher is not None:
        teacher = teacher.to(device).requires_grad_(False).eval()
    # Without the embeddings of a feature teacher: they come from a cache and cost little.
    conf = dataclasses.replace(config.distill_conf, embedding=EmbeddingConfig())
    config = dataclasses.replace(config, distill_conf=conf)
    labels = _made_up_labels(config.model.output_dim)
    objective = build_objective(config, student, teacher, config.stage_plan, labels).to(device)
    return StepParts(
        process=Process(0, 1, device),
        config=config,
        model=student,
        teacher=teacher,
        objective=objective,
        optimizer=make_optimizer(config, student, objective),
        seed=0,
        use_bf16=use_bf16,
    )


def _made_up_labels(size: int) -> LabelSet:
    """Return labels for so many outputs, with one keyword: some terms need keywords."""
    characters = [chr(0x4E00 + number) for number in range(size - 2)]
    return LabelSet(
        vocabulary=Vocabulary((BLANK_TOKEN, FILLER_TOKEN, *characters)),
        tokenizer=Tokenizer(),
        keywords=("".join(characters[:NUM_LABELS]),),
    )


def _step(parts: StepParts, batch: Batch, index: int) -> None:
    backward(parts, step_inputs(parts, batch, step_generator(0, 0, index), HALFWAY), HALFWAY)
    nn.utils.clip_grad_norm_(parts.parameters, parts.config.training_config.grad_clip)
    parts.optimizer.step()
