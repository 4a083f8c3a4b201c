"""One run of a plan: train, average, score, in a folder of its own."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from wekws.config import parse_section
from wekws.errors import DataError
from wekws.files import file_lock
from wekws.score.scoring import score_list
from wekws.score.summary import summarise
from wekws.train.average import average_model
from wekws.train.build import train_model
from wekws.train.epoch_checkpoint import comparable_epochs
from wekws.train.options import DeviceName, TrainOptions
from wekws.train.train_config import load_train_config
from wekws.yaml_files import read_yaml, write_yaml

JOB_NAME = "variant.yaml"
CONFIG_NAME = "given.yaml"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that one run needs beside its configuration; ``variant.yaml`` in its folder."""

    variant: str
    """Name of the variant in its plan."""
    seed: int
    """Seed of the run."""
    init_from_teacher: bool
    """Whether the student starts from the first teacher's weights."""
    num_average: int
    """Best epochs by cv loss that make the scored checkpoint."""
    lists: str
    """Folder with train, dev, test and dict, as run_distill.sh leaves it."""
    teachers: tuple[str, ...]
    """Checkpoints of the teachers."""
    lexicon: str = ""
    """Pronunciation lexicon; empty: none."""
    test_lists: str = ""
    """Folder whose test set is scored instead of that in ``lists``; empty: none."""
    feature_teacher: str = ""
    """Feature teacher, see ``TrainOptions``; empty: none."""
    use_bf16: bool = False
    """Matrix products of the training in bfloat16."""
    start_from: str = ""
    """Checkpoint to start from instead of the first teacher; empty: none."""

    @property
    def checkpoint_name(self) -> str:
        """File name of the averaged checkpoint."""
        return f"avg_{self.num_average}.pt"

    def dev_dir(self, run_dir: Path) -> Path:
        """Return the folder in ``run_dir`` with the scores of the dev set."""
        return run_dir / f"dev_avg_{self.num_average}"

    def result_dir(self, run_dir: Path) -> Path:
        """Return the folder in ``run_dir`` with the scores of the test set."""
        name = Path(self.test_lists).name if self.test_lists else "test"
        return run_dir / f"{name}_avg_{self.num_average}"

    def write(self, run_dir: Path) -> None:
        """Write ``variant.yaml``."""
        write_yaml(run_dir / JOB_NAME, dataclasses.asdict(self))


def read_job(run_dir: Path) -> Job:
    """Read the ``variant.yaml`` of a run's folder."""
    path = run_dir / JOB_NAME
    return parse_section(Job, read_yaml(path), str(path))


def run_job(
    run_dir: Path,
    *,
    device: DeviceName = "auto",
    num_threads: int = 0,
    num_workers: int = 1,
    keep_epochs: bool = False,
) -> None:
    """Train, average and score the run that ``run_dir/variant.yaml`` describes.

    It continues where it was interrupted; a run that is trained is only scored. All its files lie
    in ``run_dir``.
    keep_epochs: whether to keep the weights of every epoch.
    Raises: DataError if another process works on the folder; ConfigError or DataError of training
    and scoring.
    """
    try:
        with file_lock(run_dir / "lock", wait=False):
            job = read_job(run_dir)
            checkpoint = run_dir / job.checkpoint_name
            if not checkpoint.exists():
                _train(run_dir, job, device, num_threads, num_workers)
                # The last stage of a short run may have fewer epochs.
                num = min(job.num_average, len(comparable_epochs(run_dir)))
                average_model(run_dir, num, is_best=True, checkpoint=checkpoint)
            lists = Path(job.lists)
            score_on_dev_and_test(
                checkpoint,
                lists=lists,
                dev_dir=job.dev_dir(run_dir),
                test_lists=Path(job.test_lists) if job.test_lists else lists,
                test_dir=job.result_dir(run_dir),
                device=device,
                num_workers=num_workers,
            )
            if not keep_epochs:
                _drop_epochs(run_dir)
    except BlockingIOError:
        raise DataError(f"{run_dir}: another process works on it; wait for it or end it") from None


def _train(run_dir: Path, job: Job, device: DeviceName, num_threads: int, num_workers: int) -> None:
    lists = Path(job.lists)
    options = TrainOptions(
        config=load_train_config(run_dir / CONFIG_NAME),
        train_data=lists / "train/data.list",
        cv_data=lists / "dev/data.list",
        model_dir=run_dir,
        dict_path=lists / "dict/dict.txt",
        lexicon=Path(job.lexicon) if job.lexicon else None,
        keywords_file=lists / "dict/keywords.txt",
        cache_dir=lists / "cache",
        teachers=tuple(Path(path) for path in job.teachers),
        feature_teacher=job.feature_teacher,
        init_from_teacher=job.init_from_teacher,
        start_from=Path(job.start_from) if job.start_from else None,
        resume=True,
        seed=job.seed,
        num_workers=num_workers,
        num_threads=num_threads,
        device=device,
        use_bf16=job.use_bf16,
        trackers=(),
    )
    train_model(options)


def score_on_dev_and_test(
    checkpoint: Path,
    *,
    lists: Path,
    dev_dir: Path,
    test_lists: Path,
    test_dir: Path,
    device: DeviceName = "auto",
    num_workers: int = 1,
) -> None:
    """Score a checkpoint on dev, unless that is done, and on test, with dev's thresholds.

    lists, test_lists: folders that hold dev and test. dev_dir, test_dir: folders for the scores.
    """
    for folder, split, result_dir in ((lists, "dev", dev_dir), (test_lists, "test", test_dir)):
        # score.json is the file that scoring writes last.
        if split == "dev" and (result_dir / "score.json").exists():
            continue
        score_list(
            checkpoint,
            folder / split / "data.list",
            result_dir,
            keywords_file=lists / "dict" / "keywords.txt",
            cache_dir=folder / "cache",
            device=device,
            num_workers=num_workers,
        )
    summarise(test_dir, dev_result_dir=dev_dir)


def _drop_epochs(run_dir: Path) -> None:
    """Delete the single epochs that the average was made of, and what only a resume needs."""
    for path in [*run_dir.glob("[0-9]*.pt"), run_dir / "best.pt", run_dir / "train_state.pt"]:
        path.unlink(missing_ok=True)
