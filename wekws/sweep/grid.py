"""The runs of a plan: their folders, which are done, and how the rest is spread over devices."""

import logging
import multiprocessing
import os
import queue
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from wekws.config import to_mapping
from wekws.dataset.feature_teacher import load_feature_teacher
from wekws.errors import ConfigError, DataError
from wekws.files import file_sha256
from wekws.log import run as run_logged
from wekws.machine import follow_parent, usable_cores
from wekws.sweep.plan import Variant
from wekws.sweep.run_job import CONFIG_NAME, Job, run_job
from wekws.train.options import DeviceName
from wekws.yaml_files import write_yaml

logger = logging.getLogger(__name__)

LOG_NAME = "run.log"


@dataclass(frozen=True)
class PlannedRun:
    """A run and its folder, which is named for its content: plans share runs that are equal."""

    variant: Variant
    """The configuration."""
    job: Job
    """Everything else that the run needs."""
    run_dir: Path
    """Its folder."""

    @property
    def result_dir(self) -> Path:
        """Folder with the scores of the test set."""
        return self.job.result_dir(self.run_dir)

    @property
    def is_done(self) -> bool:
        """Whether its last file, the summary of the test set, exists."""
        return (self.result_dir / "summary.json").exists()


@dataclass(frozen=True)
class RunDevice:
    """The device of one run at a time."""

    gpu: int | None
    """Number of the GPU; None: the CPU."""
    num_threads: int
    """CPU threads of the run."""

    @property
    def name(self) -> DeviceName:
        """Name of the device for training and scoring."""
        return "cpu" if self.gpu is None else "cuda"


def planned_runs(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    *,
    lists: Path,
    teachers: Sequence[Path],
    runs_dir: Path,
    lexicon: Path | None = None,
    test_lists: Path | None = None,
    feature_teacher: str = "",
    use_bf16: bool = False,
) -> list[PlannedRun]:
    """Return the run of every variant with every seed, all variants of the first seed first.

    The name of a run's folder is a hash of everything that its outcome depends on: configuration,
    start, teachers, training list and seed.
    feature_teacher: see ``TrainOptions``; it counts for the variants that give it a weight.
    use_bf16: see ``TrainOptions``.
    Raises: ConfigError if there is no such feature teacher, or a variant lacks one.
    """
    feature_hash = load_feature_teacher(feature_teacher).fingerprint if feature_teacher else ""
    teacher_hashes = [file_sha256(teacher) for teacher in teachers]
    list_hash = file_sha256(lists / "train/data.list")
    runs = []
    for seed in seeds:
        for variant in variants:
            job = Job(
                variant=variant.name,
                seed=seed,
                init_from_teacher=variant.init_from_teacher,
                num_average=variant.num_average,
                lists=str(lists),
                teachers=tuple(str(teachers[index]) for index in variant.teachers),
                lexicon=str(lexicon or ""),
                test_lists=str(test_lists or ""),
                feature_teacher=feature_teacher if variant.needs_feature_teacher else "",
                use_bf16=use_bf16,
                start_from=str(teachers[variant.start]) if variant.has_own_start else "",
            )
            basis = [*(teacher_hashes[index] for index in variant.teachers), list_hash]
            if use_bf16:
                basis.append("bf16")
            if variant.has_own_start:
                basis.append(f"start {teacher_hashes[variant.start]}")
            if variant.needs_feature_teacher:
                if not feature_teacher:
                    raise ConfigError(f"{variant.name}: needs --feature_teacher")
                basis.append(feature_hash)
            name = f"{variant.identity(*basis)}_{seed}"
            runs.append(PlannedRun(variant, job, runs_dir / name))
    return runs


def available_devices(num_jobs: int) -> list[RunDevice]:
    """Return the devices that can work at the same time.

    Every GPU, shared by ``num_jobs`` runs (0: one); without a GPU the CPU's cores, shared by
    ``num_jobs`` runs (0: one per core).
    """
    if torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        return [RunDevice(gpu, 1) for gpu in gpus for _ in range(num_jobs or 1)]
    num_cores = usable_cores()
    num_jobs = num_jobs or num_cores
    return [RunDevice(None, max(1, num_cores // num_jobs)) for _ in range(num_jobs)]


def run_all(runs: Sequence[PlannedRun], devices: Sequence[RunDevice]) -> Iterator[PlannedRun]:
    """Do the runs that are not done, one per device at a time; yield each when it has ended.

    Every run is a process of its own, which calls ``run_job`` and writes its log into its folder.
    The processes end with the caller's loop, however it ends (Ctrl-C), and no further run begins.
    Raises: DataError at the end, naming the runs that failed and their logs; the others are done
    all the same.
    """
    free: queue.SimpleQueue[RunDevice] = queue.SimpleQueue()
    for device in devices:
        free.put(device)
    failed = []
    processes = _Processes()
    with ThreadPoolExecutor(len(devices)) as pool:
        ends = [
            (run, pool.submit(_run_one, run, free, processes)) for run in runs if not run.is_done
        ]
        try:
            for run, end in ends:
                if end.result():
                    yield run
                else:
                    failed.append(run)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
    if failed:
        logs = "\n  ".join(f"{run.job.variant}: {run.run_dir / LOG_NAME}" for run in failed)
        raise DataError(
            f"{len(failed)} of {len(runs)} runs failed, the first with: "
            f"{_last_line(failed[0].run_dir / LOG_NAME)}\ntheir logs:\n  {logs}"
        )


def _last_line(log: Path) -> str:
    """Return the last line of a log, or that it has none."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return (text.splitlines() or ["no message"])[-1]


class _Processes:
    """The processes of runs, each of which a thread waits for."""

    def __init__(self) -> None:
        self._running: set[BaseProcess] = set()
        self._is_over = False

    def run(self, process: BaseProcess) -> int | None:
        """Start a process and wait for its end; return its exit status."""
        process.start()
        self._running.add(process)
        if self._is_over:
            process.terminate()
        process.join()
        self._running.remove(process)
        return process.exitcode

    def end(self) -> None:
        """End those that run now, and any that starts later."""
        self._is_over = True
        for process in tuple(self._running):
            process.terminate()


def _run_one(run: PlannedRun, free: "queue.SimpleQueue[RunDevice]", processes: _Processes) -> bool:
    run.run_dir.mkdir(parents=True, exist_ok=True)
    write_yaml(run.run_dir / CONFIG_NAME, to_mapping(run.variant.content))
    run.job.write(run.run_dir)
    device = free.get()
    try:
        # A fork of a process that has imported this module and no more: neither threads nor a GPU
        # context come along, and torch, whose import takes seconds, is imported once for all runs.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        process = context.Process(target=_run_in_process, args=(run.run_dir, device))
        return processes.run(process) == 0
    finally:
        free.put(device)


def _run_in_process(run_dir: Path, device: RunDevice) -> None:
    """Do a run in this process, with its own GPU and log, and no longer than its parent lives."""
    follow_parent()
    if device.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device.gpu)
    with open(run_dir / LOG_NAME, "a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(
        run_logged(lambda: run_job(run_dir, device=device.name, num_threads=device.num_threads))
    )
