"""Time of a distillation step on this machine: real steps on random data."""

import dataclasses
import logging
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Self

import numpy as np
import torch
from torch import nn

from wekws.dataset.batch import Batch
from wekws.dataset.label_set import LabelSet
from wekws.dataset.vocabulary import BLANK_TOKEN, FILLER_TOKEN, Tokenizer, Vocabulary
from wekws.distill.embedding import EmbeddingConfig
from wekws.distill.methods import build_objective
from wekws.machine import follow_parent, threads_of_process
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig
from wekws.train.build import mix_teachers
from wekws.train.distributed import Process
from wekws.train.loop import StepParts, backward, step_inputs
from wekws.train.optimizer import make_optimizer
from wekws.train.step_inputs import step_generator
from wekws.train.train_config import TrainConfig

NUM_LABELS = 4
# Progress of the training, where schedules and stages usually have every term in use.
HALFWAY = 0.5
_NUM_DRAWS = 200
# A process that has not come to its first step by then never will.
_LONGEST_START_S = 300.0


@dataclass(frozen=True, kw_only=True)
class TimedStep:
    """A step to time: the models, the input and the terms that it has."""

    experiment: TrainConfig
    """The whole configuration of the model in training, outputs included."""
    teachers: tuple[ModelConfig, ...] = ()
    """Sizes of its teachers; none: plain CTC."""
    durations_s: tuple[float, ...]
    """Durations that those of the batch are drawn from."""
    keyword_lengths: tuple[int, ...] = (NUM_LABELS,)
    """Tokens of each keyword: the keyword term searches every one of them."""
    most_utterances: int = 0
    """Measure smaller batches than the configured ones; 0: do not."""
    use_bf16: bool = False
    """Matrix products in bfloat16."""


class StepTimer:
    """Times steps in as many processes at once as a training has.

    Processes on one machine share caches, memory and often cores: on a CPU a step takes longer
    beside others than alone. Close it, or use it as a context manager: it keeps its processes.
    """

    def __init__(
        self, device: torch.device, *, num_processes: int = 1, num_threads: int = 0
    ) -> None:
        """device: of this process; on a GPU each process has its own, and one is measured.

        num_processes: processes of the training, which divide each batch.
        num_threads: CPU threads of each; 0: its share of the cores.
        """
        self.device, self._num_processes = device, num_processes
        self._num_threads = threads_of_process(num_threads, num_processes)
        self._pool: ProcessPoolExecutor | None = None
        if device.type == "cpu" and num_processes > 1:
            # Forks of a process that has imported this module and no more: no threads come along.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            barrier = context.Barrier(num_processes, timeout=_LONGEST_START_S)
            self._pool = ProcessPoolExecutor(
                num_processes, context, _start_worker, (self._num_threads, barrier)
            )

    def __enter__(self) -> Self:
        """Return the timer."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown()

    def seconds_per_utterance(self, step: TimedStep, *, repeats: int = 3) -> float:
        """Return the wall time of a whole optimiser step, divided by its utterances.

        Models have the configured sizes; their input is noise. A step is SpecAugment, both forward
        passes, loss, backward pass, clipping and optimiser; reading features and exchanging
        gradients are not part of it. Measured is the fastest of ``repeats`` steps after one that is
        not counted, in the slowest process, and with one CPU thread its CPU time, so that other
        work on the machine has little effect.
        """
        if self._pool is None:
            _use_threads(self._num_threads)
            taken = _seconds_per_utterance(step, self.device, self._num_processes, repeats, None)
        else:
            runs = [
                self._pool.submit(_in_worker, step, self._num_processes, repeats)
                for _ in range(self._num_processes)
            ]
            taken = max(run.result() for run in runs)
        return taken / self._num_processes


_barrier: Barrier | None = None


def _start_worker(num_threads: int, barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - a pool's worker gets it here, and a task cannot carry it
    _barrier = barrier
    follow_parent()
    _use_threads(num_threads)


def _use_threads(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)  # as in training


def _in_worker(step: TimedStep, num_processes: int, repeats: int) -> float:
    return _seconds_per_utterance(step, torch.device("cpu"), num_processes, repeats, _barrier)


def _seconds_per_utterance(
    step: TimedStep, device: torch.device, num_processes: int, repeats: int, barrier: Barrier | None
) -> float:
    """Return the time of one process's step; ``barrier`` lets all of them begin together."""
    # What is logged of a run does not concern these steps.
    logging.disable(logging.INFO)
    parts = _step_parts(step, device)
    logging.disable(logging.NOTSET)
    size = max(1, step.experiment.step_size // num_processes)
    batch = random_batch(step.experiment, step.durations_s, min(size, step.most_utterances or size))
    is_alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_alone else time.perf_counter
    times = []
    for index in range(1 + repeats):
        if barrier is not None:
            barrier.wait()
        began = clock()
        _step(parts, batch, index)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return min(times[1:]) / len(batch.keys)


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


def _step_parts(step: TimedStep, device: torch.device) -> StepParts:
    # Without the embeddings of a feature teacher: they come from a cache and cost little.
    conf = dataclasses.replace(step.experiment.distill_conf, embedding=EmbeddingConfig())
    config = dataclasses.replace(step.experiment, distill_conf=conf)
    student = _random_model(config.model).to(device)
    teacher = mix_teachers([_random_model(sizes) for sizes in step.teachers])
    if teacher is not None:
        teacher = teacher.to(device).requires_grad_(False).eval()
    labels = _made_up_labels(config.model.output_dim, step.keyword_lengths)
    objective = build_objective(config, student, teacher, config.stage_plan, labels).to(device)
    return StepParts(
        process=Process(0, 1, device),
        config=config,
        model=student,
        teacher=teacher,
        objective=objective,
        optimizer=make_optimizer(config, student, objective),
        seed=0,
        use_bf16=step.use_bf16,
    )


def _random_model(sizes: ModelConfig) -> KwsModel:
    return KwsModel(sizes, (torch.zeros(sizes.input_dim), torch.ones(sizes.input_dim)))


def _made_up_labels(size: int, keyword_lengths: Sequence[int]) -> LabelSet:
    """Return labels for so many outputs, and keywords of so many tokens: some terms need them."""
    characters = [chr(0x4E00 + number) for number in range(size - 2)]
    return LabelSet(
        vocabulary=Vocabulary((BLANK_TOKEN, FILLER_TOKEN, *characters)),
        tokenizer=Tokenizer(),
        keywords=tuple(
            "".join(characters[(first + i) % len(characters)] for i in range(length))
            for first, length in enumerate(keyword_lengths)
        ),
    )


def _step(parts: StepParts, batch: Batch, index: int) -> None:
    backward(parts, step_inputs(parts, batch, step_generator(0, 0, index), HALFWAY), HALFWAY)
    nn.utils.clip_grad_norm_(parts.parameters, parts.config.training_config.grad_clip)
    parts.optimizer.step()
