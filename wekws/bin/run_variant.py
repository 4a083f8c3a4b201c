"""Train, average and score one run of an ablation, as its ``variant.yaml`` says.

Goes on where it was interrupted; one that is trained is only scored. Everything that it makes
lies in the run's folder.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.bin import average_model, compute_det_ctc, score_ctc, train_distill
from wekws.config import parse_section
from wekws.errors import DataError
from wekws.files import file_lock, read_yaml
from wekws.log import run
from wekws.sweep.grid import CONFIG_NAME, JOB_NAME, Job, result_name


def main(argv: list[str] | None = None) -> int:
    """Run the commands in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", type=Path, required=True, help="holds variant.yaml")
    parser.add_argument("--num_threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--keep_epochs", action="store_true", help="keep every epoch's weights")
    args = parser.parse_args(argv)
    try:
        with file_lock(args.run_dir / "lock", wait=False):
            _run_all(args)
    except BlockingIOError:
        raise DataError(f"{args.run_dir}: another process works on it; wait or end that") from None
    return 0


def _run_all(args: argparse.Namespace) -> None:
    path = args.run_dir / JOB_NAME
    job = parse_section(Job, read_yaml(path), str(path))
    lists, computing = Path(job.lists), ["--device", args.device, "--num_workers", "1"]
    checkpoint = args.run_dir / f"avg_{job.num_average}.pt"
    if not checkpoint.exists():
        _train(args, job, computing)
        average_model.main(
            [
                *("--src_path", str(args.run_dir), "--dst_model", str(checkpoint)),
                *("--num", str(job.num_average), "--val_best"),
            ]
        )
    dev_dir = args.run_dir / result_name("dev", job.num_average)
    test_lists, test_dir = Path(job.test_lists or lists), job.result_dir(args.run_dir)
    score(checkpoint, (lists, dev_dir), (test_lists, test_dir), computing)
    if not args.keep_epochs:
        _drop_epochs(args.run_dir)


def _train(args: argparse.Namespace, job: Job, computing: Sequence[str]) -> None:
    lists = Path(job.lists)
    train_distill.main(
        [
            *("--config", str(args.run_dir / CONFIG_NAME), "--model_dir", str(args.run_dir)),
            *("--train_data", str(lists / "train/data.list")),
            *("--cv_data", str(lists / "dev/data.list"), "--cache_dir", str(lists / "cache")),
            *("--dict", str(lists / "dict/dict.txt")),
            *("--keywords_file", str(lists / "dict/keywords.txt")),
            *(["--lexicon", job.lexicon] if job.lexicon else []),
            *(flag for path in job.teachers for flag in ("--teacher_checkpoint", path)),
            *("--seed", str(job.seed), "--resume"),
            *("--num_threads", str(args.num_threads), *computing),
            *(["--init_from_teacher"] if job.init_from_teacher else []),
        ]
    )


def score(
    checkpoint: Path,
    dev: tuple[Path, Path],
    test: tuple[Path, Path],
    computing: Sequence[str] = (),
) -> None:
    """Score a checkpoint on dev, unless that is done, and on test, with dev's thresholds.

    dev, test: the folder of lists, and that of the scores. computing: flags of ``score_ctc``.
    """
    for split, (lists, result_dir) in (("dev", dev), ("test", test)):
        # score.json is what scoring writes last.
        if split == "dev" and (result_dir / "score.json").exists():
            continue
        score_ctc.main(
            [
                *("--checkpoint", str(checkpoint), "--result_dir", str(result_dir)),
                *("--test_data", str(lists / split / "data.list")),
                *("--cache_dir", str(lists / "cache"), *computing),
            ]
        )
    compute_det_ctc.main(["--result_dir", str(test[1]), "--dev_result_dir", str(dev[1])])


def _drop_epochs(run_dir: Path) -> None:
    """Delete single epochs, of which the average is made, and what only a resume needs."""
    for path in [*run_dir.glob("[0-9]*.pt"), run_dir / "train_state.pt"]:
        path.unlink(missing_ok=True)
    shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run(main))
