"""The runs of a plan: where each lies, which are done, and how the rest is spread over devices."""

import dataclasses
import logging
import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wekws.config import to_mapping
from wekws.errors import DataError
from wekws.files import file_sha256, write_yaml
from wekws.machine import usable_cores
from wekws.sweep.plan import Variant

logger = logging.getLogger(__name__)

JOB_NAME = "variant.yaml"
CONFIG_NAME = "given.yaml"
LOG_NAME = "run.log"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run needs beside its configuration.

    lists: folder with train, dev, test and dict. test_lists: folder with the test set, if that is
    another. teachers: checkpoints. lexicon: empty for none.
    """

    variant: str
    seed: int
    init_from_teacher: bool
    num_average: int
    lists: str
    teachers: tuple[str, ...]
    lexicon: str = ""
    test_lists: str = ""

    def result_dir(self, run_dir: Path) -> Path:
        """Return the folder in ``run_dir`` with the scores of the test set."""
        name = Path(self.test_lists).name if self.test_lists else "test"
        return run_dir / result_name(name, self.num_average)


@dataclass(frozen=True)
class PlannedRun:
    """A run and its folder, which is named for what it is: plans share runs that are the same."""

    variant: Variant
    job: Job
    run_dir: Path

    @property
    def result_dir(self) -> Path:
        """Scores of the test set."""
        return self.job.result_dir(self.run_dir)

    @property
    def is_done(self) -> bool:
        """Whether its last file, the summary of the test set, is there."""
        return (self.result_dir / "summary.json").exists()


@dataclass(frozen=True)
class Device:
    """Where a run computes. gpu: number of the GPU, None for the CPU."""

    gpu: int | None
    num_threads: int

    @property
    def flags(self) -> list[str]:
        """What a command is told of it."""
        kind = "cpu" if self.gpu is None else "cuda"
        return ["--device", kind, "--num_threads", str(self.num_threads)]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that is to see this GPU and no other."""
        shown = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.gpu)}
        return {**os.environ, **shown}


def result_name(split: str, num_average: int) -> str:
    """Return the name of the folder with a split's scores."""
    return f"{split}_avg_{num_average}"


def planned_runs(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    *,
    lists: Path,
    teachers: Sequence[Path],
    lexicon: Path | None,
    test_lists: Path | None,
    runs_dir: Path,
) -> list[PlannedRun]:
    """Return every variant's run with every seed, all variants of the first seed first.

    A run's folder is named after what its outcome depends on: configuration, start, teachers,
    training list and seed.
    """
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
                teachers=tuple(map(str, teachers[: variant.num_teachers])),
                lexicon=str(lexicon or ""),
                test_lists=str(test_lists or ""),
            )
            basis = [*teacher_hashes[: variant.num_teachers], list_hash]
            name = f"{variant.identity(*basis)}_{seed}"
            runs.append(PlannedRun(variant, job, runs_dir / name))
    return runs


def available_devices(num_jobs: int) -> list[Device]:
    """Return where runs can compute at the same time.

    Each GPU once; without one the CPU's cores, shared by ``num_jobs`` runs (0: one a core).
    """
    import torch

    if torch.cuda.is_available():
        return [Device(gpu, 1) for gpu in range(torch.cuda.device_count())]
    num_cores = usable_cores()
    num_jobs = num_jobs or num_cores
    return [Device(None, max(1, num_cores // num_jobs)) for _ in range(num_jobs)]


def carry_out(runs: Sequence[PlannedRun], devices: Sequence[Device]) -> Iterator[PlannedRun]:
    """Do the runs that are not done, as many at a time as there are devices; yield each at its end.

    Raises: DataError at the end, naming the runs that failed and their logs; the others are done
    all the same.
    """
    free: queue.SimpleQueue[Device] = queue.SimpleQueue()
    for device in devices:
        free.put(device)
    failed = []
    with ThreadPoolExecutor(len(devices)) as pool:
        ends = [(run, pool.submit(_carry_out_one, run, free)) for run in runs if not run.is_done]
        for run, end in ends:
            if end.result():
                yield run
            else:
                failed.append(run)
    if failed:
        logs = "\n  ".join(f"{run.job.variant}: {run.run_dir / LOG_NAME}" for run in failed)
        raise DataError(f"{len(failed)} of {len(runs)} runs failed; their logs:\n  {logs}")


def _carry_out_one(run: PlannedRun, free: queue.SimpleQueue) -> bool:
    run.run_dir.mkdir(parents=True, exist_ok=True)
    write_yaml(run.run_dir / CONFIG_NAME, to_mapping(run.variant.content))
    write_yaml(run.run_dir / JOB_NAME, dataclasses.asdict(run.job))
    device = free.get()
    command = [sys.executable, "-m", "wekws.bin.run_variant", "--run_dir", str(run.run_dir)]
    try:
        with open(run.run_dir / LOG_NAME, "a", encoding="utf-8") as log:
            ended = subprocess.run(
                [*command, *device.flags], env=device.environment, stdout=log, stderr=log
            )
    finally:
        free.put(device)
    return ended.returncode == 0
