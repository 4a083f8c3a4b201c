"""Faults, what each of them ends in, and the table of all of them.

python tests/faults/fault_cases.py [--all] [--seed 0]

A fault is a file of a run folder that is damaged, a disk that is full or read-only at the n-th file
that a command writes, or a signal at a random moment or at the n-th file. What follows must be the
weights of a run without faults, or one line that says what to do. Without --all a sample is drawn.
"""

import argparse
import builtins
import errno
import importlib
import io
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.utils.tensorboard  # noqa: F401  (once here, not in every child)

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tones import ToneCorpus, make_tone_corpus  # noqa: E402

from wekws.log import run  # noqa: E402

# What a command writes that must be the same after a fault, below the folder of the run.
PRODUCTS = {
    "average_model": "avg.pt",
    "score_ctc": "dev/score.txt",
    "compute_det_ctc": "dev/stats.嗨小问.txt",
    "compute_cmvn": "new_cmvn",
}
STUDENT = ("model.backbone.linear_dim=16", "model.backbone.proj_dim=8")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    """Exit status; below 0: killed by a signal."""
    text: str
    """Everything it printed."""

    @property
    def is_one_line(self) -> bool:
        """Whether it refused with one message and no traceback."""
        lines = [line for line in self.text.splitlines() if line.startswith("error: ")]
        return self.status == 2 and len(lines) == 1 and "Traceback" not in self.text

    @property
    def message(self) -> str:
        """The error, or the last line."""
        lines = self.text.strip().splitlines() or [f"status {self.status}"]
        return next((line for line in lines if line.startswith("error: ")), lines[-1])


def in_child(
    words: list[str], fault: Callable[[], None] | None = None, kill_after_s: float | None = None,
    sent: signal.Signals = signal.SIGKILL,
) -> Ended:  # fmt: skip
    """Run a command in a fork of this process.

    words: name of the command and its flags. fault: called in the child before the command.
    kill_after_s: send ``sent`` after this time.
    """
    command = importlib.import_module(f"wekws.bin.{words[0]}")
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.argv = sys.orig_argv = words
            signal.signal(signal.SIGINT, signal.default_int_handler)
            torch.set_num_threads(1)
            if fault is not None:
                fault()
            status = run(lambda: command.main(words[1:]))
        finally:
            os._exit(status)
    os.close(writer)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, sent)
    with open(reader, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text)


@dataclass(frozen=True)
class World:
    """A corpus, a teacher, and a student of two epochs that another epoch can be added to."""

    root: Path
    corpus: ToneCorpus

    @classmethod
    def make(cls, root: Path) -> "World":
        """Train the teacher, the student of two epochs, and the same student of three."""
        world = cls(root, make_tone_corpus(root))
        commands = [
            world.train(root / "teacher", 1, "train"),
            world.train(root / "student", 2),
            world.train(root / "whole", 3),
            *(world.command(name, root / "student") for name in PRODUCTS),
        ]
        for words in commands:
            ended = in_child(words)
            assert ended.status == 0, ended.text
        return world

    def command(self, name: str, folder: Path) -> list[str]:
        """Return a command that reads a run's folder; ``train_distill`` adds an epoch to it."""
        if name == "train_distill":
            return self.train(folder, 3)
        words = {
            "average_model": ["--src_path", folder, "--num", "2", "--dst_model", folder / "avg.pt"],
            "score_ctc": [
                *("--checkpoint", folder / "final.pt", "--test_data", self.corpus.dev_list),
                *("--cache_dir", self.root / "cache", "--result_dir", folder / "dev"),
                *("--device", "cpu", "--num_workers", "0"),
            ],
            "compute_det_ctc": ["--result_dir", folder / "dev"],
            "compute_cmvn": [
                *("--config", folder / "config.yaml", "--data_list", self.corpus.train_list),
                *("--cache_dir", folder / "cache", "--cmvn_file", folder / "new_cmvn"),
                *("--num_workers", "0"),
            ],
            "model_info": ["--config", folder / "config.yaml"],
        }[name]
        return [name, *map(str, words)]

    def train(
        self, model_dir: Path, epochs: int, command: str = "train_distill", cache: str = "cache"
    ) -> list[str]:
        """Return the command that trains, or resumes, a run."""
        corpus = self.corpus
        flags = {
            "config": corpus.config_path,
            "train_data": corpus.train_list,
            "cv_data": corpus.dev_list,
            "dict": corpus.dict_path,
            "keywords_file": corpus.keywords_path,
            "cmvn_file": corpus.cmvn_path,
            "cache_dir": self.root / cache,
            "model_dir": model_dir,
        }
        words = [command, "--resume", "--num_workers", "0", "--num_threads", "1"]
        words += ["--device", "cpu", "--override", f"training_config.max_epoch={epochs}"]
        words += [str(word) for name, path in flags.items() for word in (f"--{name}", path)]
        if command == "train_distill":
            words += ["--teacher_checkpoint", str(self.root / "teacher" / "final.pt")]
            words += [word for setting in STUDENT for word in ("--override", setting)]
        return words

    def copy(self) -> Path:
        """Return a fresh copy of the student of two epochs."""
        folder = Path(tempfile.mkdtemp(dir=self.root)) / "run"
        made = shutil.ignore_patterns("cache", "avg.*", "new_cmvn")
        shutil.copytree(self.root / "student", folder, ignore=made)
        return folder

    def is_as_without_fault(self, name: str, folder: Path) -> bool:
        """Return whether a command has left what it leaves where nothing goes wrong."""
        if name == "train_distill":
            return self._is_whole(folder)
        product = PRODUCTS.get(name, "config.yaml")
        return (folder / product).read_bytes() == (self.root / "student" / product).read_bytes()

    def _is_whole(self, model_dir: Path) -> bool:
        first, second = (
            torch.load(folder / "final.pt", weights_only=True)
            for folder in (model_dir, self.root / "whole")
        )
        return all(torch.equal(first[name], second[name]) for name in second)


@dataclass(frozen=True)
class Case:
    """A fault and the check of what follows."""

    name: str
    """The command, the fault and its place."""
    check: Callable[[], tuple[bool, str]]
    """Causes the fault; returns whether the end is a good one, and describes it."""


# ---- damaged files


def _shorten(path: Path, marker: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path, marker: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path, marker: Path) -> None:
    path.write_text("meeting at ten\nbring cake\n")


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple:
        return open, (self._marker, "w")


def _hostile(path: Path, marker: Path) -> None:
    if path.suffix == ".yaml":
        path.write_text(f"!!python/object/apply:builtins.open [{marker}, w]\n")
    elif path.suffix == ".pt":
        torch.save(_Hostile(marker), path)
    else:
        path.write_bytes(pickle.dumps(_Hostile(marker)))


def _missing(path: Path, marker: Path) -> None:
    path.unlink()


def _folder(path: Path, marker: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "truncated": _shorten, "empty": _empty, "text": _text, "hostile": _hostile,
    "missing": _missing, "a folder": _folder,
}  # fmt: skip
RUN_FILES = (
    *("train_state.pt", "1.pt", "1.yaml", "0.pt", "run.json", "config.yaml", "metrics.jsonl"),
    *("dict.txt", "keywords.txt", "global_cmvn", "global_cmvn.kaldi", "final.pt", "final.yaml"),
)
READERS = {
    "average_model": ("0.pt", "1.pt", "1.yaml"),
    "compute_cmvn": ("config.yaml",),
    "score_ctc": ("final.pt", "config.yaml", "dict.txt", "keywords.txt", "run.json"),
    "compute_det_ctc": ("dev/score.txt", "dev/score.json"),
    "model_info": ("config.yaml",),
}


def damage_cases(world: World) -> Iterator[Case]:
    """Every file of a run folder, damaged in every way, before it is resumed or read."""
    files = {"train_distill": RUN_FILES, **READERS}
    for command, names in files.items():
        for name in names:
            for damage in DAMAGES:
                check = partial(_check_damaged, world, command, name, damage)
                yield Case(f"{command}: {name} {damage}", check)


def _check_damaged(world: World, command: str, name: str, damage: str) -> tuple[bool, str]:
    folder = world.copy()
    marker = folder / "executed"
    DAMAGES[damage](folder / name, marker)
    words = world.command(command, folder)
    ended = in_child(words)
    if marker.exists():
        return False, "its code was executed"
    if ended.status == 0:
        return world.is_as_without_fault(command, folder), "done as without the fault"
    return ended.is_one_line, ended.message.replace(str(folder), "RUN")


# ---- a disk that cannot be written


def fail_at(number: int, code: int) -> Callable[[], None]:
    """Return what makes the n-th file that is opened for writing fail with an error of the system.

    ENOSPC comes when something is written, as from a full disk; other errors when it is opened.
    """

    def install() -> None:
        real, opened = builtins.open, 0

        def failing(file, mode="r", *arguments, **options):  # type: ignore[no-untyped-def]
            nonlocal opened
            if any(letter in mode for letter in "wax+") and not str(file).startswith("/dev/"):
                opened += 1
                if opened > number:
                    if code != errno.ENOSPC:
                        raise OSError(code, os.strerror(code), str(file))
                    return real("/dev/full", "wb" if "b" in mode else "w")
            return real(file, mode, *arguments, **options)

        builtins.open = io.open = failing  # type: ignore[assignment]

    return install


WRITERS = {
    **{"train_distill": 22, "score_ctc": 4, "average_model": 2, "compute_det_ctc": 4},
    "compute_cmvn": 5,
}


def disk_cases(world: World) -> Iterator[Case]:
    """A disk that is full, or read-only, from the n-th file on."""
    for command, num_files in WRITERS.items():
        for number in range(num_files):
            for name, code in (("full", errno.ENOSPC), ("read-only", errno.EROFS)):
                check = partial(_check_interrupted, world, command, fault=fail_at(number, code))
                yield Case(f"{command}: disk {name} from file {number}", check)


def _check_interrupted(world: World, command: str, **fault) -> tuple[bool, str]:  # type: ignore[no-untyped-def]
    """Run a command with a fault, then without; the second run must end as if it were the first."""
    folder = world.copy()
    words = world.command(command, folder)
    if command == "train_distill":
        shutil.rmtree(folder)
        words = world.train(folder, 3, cache=f"{folder.parent.name}/cache")
    first = in_child(words, **fault)
    is_killed = first.status in (-signal.SIGKILL, 128 + signal.SIGINT)
    if "Traceback" in first.text or not (is_killed or first.is_one_line or first.status == 0):
        return False, first.text[-600:]
    second = in_child(words)
    if second.status != 0:
        return False, f"the second time: {second.message}"
    what = "killed" if is_killed else first.message if first.status else "not reached"
    is_good = world.is_as_without_fault(command, folder)
    return is_good, f"{what.replace(str(folder.parent), '...')}; then done as without the fault"


# ---- signals


def kill_at(number: int, is_after: bool) -> Callable[[], None]:
    """Return what kills the process just before or after the n-th finished file."""

    def install() -> None:
        real, done = os.replace, 0

        def replace(source, target, **options):  # type: ignore[no-untyped-def]
            nonlocal done
            done += 1
            if done == number and not is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target, **options)
            if done == number and is_after:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace  # type: ignore[assignment]

    return install


# Files that a command finishes by renaming them.
NUM_FINISHED = {
    **{"train_distill": 17, "score_ctc": 3, "average_model": 2, "compute_det_ctc": 3},
    "compute_cmvn": 1,
}


def signal_cases(world: World, rng: random.Random, num_random: int) -> Iterator[Case]:
    """SIGKILL around every file that is finished; SIGKILL and SIGINT at random moments."""
    for command, num_files in NUM_FINISHED.items():
        for number in range(1, num_files + 1):
            for is_after in (False, True):
                place = f"SIGKILL {'after' if is_after else 'before'} file {number}"
                fault = kill_at(number, is_after)
                check = partial(_check_interrupted, world, command, fault=fault)
                yield Case(f"{command}: {place}", check)
    for command in NUM_FINISHED:
        for sent in (signal.SIGKILL, signal.SIGINT):
            for _ in range(num_random if command == "train_distill" else num_random // 4):
                after_s = rng.uniform(0.0, 2.0 if command == "train_distill" else 0.3)
                check = partial(_check_interrupted, world, command, kill_after_s=after_s, sent=sent)
                yield Case(f"{command}: {sent.name} after {after_s:.2f} s", check)


# ---- all of them


def cases(world: World, seed: int = 0, num_random: int = 8) -> dict[str, list[Case]]:
    """Return all cases by kind."""
    rng = random.Random(seed)
    return {
        "damaged file": list(damage_cases(world)),
        "disk": list(disk_cases(world)),
        "signal": list(signal_cases(world, rng, num_random)),
    }


def main() -> int:
    """Print the table; the status is 1 if a case ends badly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every case instead of a sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of random moments")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        for kind, found in cases(world, args.seed).items():
            chosen = found if args.all else random.Random(args.seed).sample(found, 8)
            print(
                f"\n| {kind} ({len(chosen)} of {len(found)}) | good | what happens |\n|---|---|---|"
            )
            for case in chosen:
                is_good, end = case.check()
                bad += not is_good
                line = " ".join(end.replace("|", "/").split())
                print(f"| {case.name} | {'yes' if is_good else 'NO'} | {line} |", flush=True)
    print(f"\n{bad} bad ends")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
