"""Faults, what each of them ends in, and the table of all of them.

python tests/faults/fault_cases.py [--all] [--seed 0] [--only TEXT]

A fault is a file of a run folder that is damaged, a disk that is full or read-only at the n-th file
that a command writes, or a signal at a random moment or at the n-th file. What follows must be what
a run without faults leaves, or one line that says what to do. Without --all a sample is drawn.
The shell stages, evaluate.sh and ablations are in recipe_faults.py.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.utils.tensorboard  # noqa: F401  (once here, not in every child)

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tones import ToneCorpus, make_tone_corpus, write_split  # noqa: E402

from wekws.log import run  # noqa: E402

STUDENT = ("model.backbone.linear_dim=16", "model.backbone.proj_dim=8")


@dataclass(frozen=True)
class Command:
    """A command that reads or writes the folder of a run."""

    flags: str
    """Its command line; names in braces are places, ``{run}`` is the folder."""
    reads: str = ""
    """Files in the folder that it reads; each is damaged in every way."""
    makes: str = ""
    """Files in the folder that it writes, in the same bytes each time."""
    leaves: str = ""
    """Files that it writes and that hold times or the name of the folder."""


_SCORED = "test_final/score.txt test_final/score.json"
_RESULTS = "test_final/summary.json test_final/stats.嗨小问.txt"
_DESCRIBED = "config.yaml run.json metrics.jsonl"
_MODEL = "final.pt config.yaml dict.txt keywords.txt"
# In the order in which a run without faults calls them.
COMMANDS = {
    "average_model": Command(
        "--src_path {run} --num 2 --dst_model {run}/avg.pt", "0.pt 1.pt 1.yaml", "avg.pt avg.yaml"
    ),
    "score_ctc": Command(
        "--checkpoint {run}/final.pt --test_data {dev}/data.list --cache_dir {root}/cache "
        "--result_dir {run}/test_final --device cpu --num_workers 0",
        f"{_MODEL} run.json",
        "test_final/score.txt test_final/events.tsv",
    ),
    "compute_det_ctc": Command("--result_dir {run}/test_final", _SCORED, _RESULTS.split()[1]),
    "compute_cmvn": Command(
        "--config {run}/config.yaml --data_list {train}/data.list --cache_dir {run}/cache "
        "--cmvn_file {run}/new_cmvn --num_workers 0",
        "config.yaml",
        "new_cmvn",
    ),
    "model_info": Command("--config {run}/config.yaml", "config.yaml"),
    "tune_threshold": Command(
        "--dev_result_dir {run}/test_final --checkpoint {run}/final.pt --budget 1000",
        f"{_SCORED} final.pt",
        leaves="final.thresholds.json",
    ),
    "export_onnx": Command(
        "--checkpoint {run}/final.pt --precision fp32 int8 --data_list {dev}/data.list",
        f"{_MODEL} final.thresholds.json",
        leaves="final.onnx final.int8.onnx",
    ),
    "fold_head": Command(
        "--checkpoint {run}/final.pt --out_dir {run}/folded",
        f"{_MODEL} run.json",
        "folded/folded.pt folded/config.yaml",
    ),
    "surgery": Command(
        "--checkpoint {run}/final.pt --source_dict {run}/dict.txt --dict {dict} "
        "--out_dir {run}/init",
        "final.pt config.yaml dict.txt",
        "init/init.pt init/config.yaml init/dict.txt",
    ),
    "evaluate_epochs": Command(
        "--model_dir {run} --dataset dev --lists {root} --cache_dir {root}/cache --num_workers 1",
        "0.pt 0.yaml 1.yaml config.yaml dict.txt",
        "best_frr.pt",
        "epochs_dev/epochs.md epochs_dev/epochs.png dev_0/score.json dev_1/score.json",
    ),
    "measure_speed": Command(
        "--teacher_checkpoint {teacher}/final.pt --checkpoint {run}/final.pt --duration_s 1",
        "final.pt config.yaml",
        leaves="speed.json",
    ),
    "review_errors": Command(
        "--student_dir {run} --out_dir {run}/report",
        f"{_SCORED} {_RESULTS} test_final/events.tsv {_DESCRIBED} final.pt",
        leaves="report/errors.html",
    ),
    "diagnose": Command(
        "{run} --out_dir {run}/diagnosis",
        f"{_RESULTS} {_DESCRIBED}",
        leaves="diagnosis/diagnosis.md diagnosis/diagnosis.html",
    ),
    "report": Command(
        "--student_dir {run} --out_dir {run}/report",
        f"{_RESULTS} test_final/score.json {_DESCRIBED} speed.json",
        leaves="report/report.md report/report.html report/det.png",
    ),
    "compare_runs": Command(
        "--groups A={run} B={student} --result test_final", f"{_SCORED} {_RESULTS} metrics.jsonl"
    ),
    "plot_curves": Command(
        "--model_dirs A={run} --out {run}/curves.png", "metrics.jsonl", leaves="curves.png"
    ),
    "plot_det": Command(
        "--result_dirs A={run}/test_final --out {run}/det.png", _RESULTS, leaves="det.png"
    ),
    "plot_confidence": Command(
        "--result_dirs A={run}/test_final --out {run}/confidence.png",
        _RESULTS,
        leaves="confidence.png",
    ),
    "spot": Command(
        "--checkpoint {run}/final.pt {root}/dev0.wav", f"{_MODEL} {_RESULTS} final.thresholds.json"
    ),
    "prepare_kaldi": Command(
        "--data_dir {kaldi} --out_dir {run}/lists",
        makes="lists/train/wav.scp lists/dev/text lists/test/utt2spk",
    ),
    "make_dict": Command(
        "--text {run}/lists/train/text --keywords AB --dict {run}/lists/dict.txt "
        "--keywords_file {run}/lists/keywords.txt",
        "lists/train/text",
        "lists/dict.txt lists/keywords.txt",
    ),
    "validate_data": Command(
        "--data_dir {run}/lists --keywords_file {run}/lists/keywords.txt "
        "--dict {run}/lists/dict.txt --config {run}/config.yaml --out_dir {run}/lists/validation "
        "--num_workers 1",
        "config.yaml lists/dict.txt lists/keywords.txt lists/dev/wav.scp lists/dev/text",
        leaves="lists/validation/validation.json lists/validation/validation.md",
    ),
    "make_list": Command(
        "--wav_scp {run}/lists/dev/wav.scp --text {run}/lists/dev/text "
        "--data_list {run}/lists/dev/data.list --num_workers 1",
        "lists/dev/wav.scp lists/dev/text",
        "lists/dev/data.list",
    ),
    "plot_durations": Command(
        "--validation {run}/lists/validation/validation.json --out {run}/durations.png",
        "lists/validation/validation.json",
        leaves="durations.png",
    ),
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    """Exit status; below 0: killed by a signal."""
    text: str
    """Everything it printed."""

    @property
    def is_one_line(self) -> bool:
        """Whether it refused with one message or a list of problems, and no traceback."""
        lines = [line for line in self.text.splitlines() if line.startswith("error: ")]
        is_said = len(lines) == 1 or "validation.md: " in self.message
        return self.status == 2 and is_said and "Traceback" not in self.text

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
class Course:
    """What a command does that runs without a fault."""

    opened: int
    """Files that it opens for writing."""
    finished: int
    """Files that it renames to their final name."""
    seconds: float
    """How long it takes."""


def counting(mark: int) -> Callable[[], None]:
    """Return what reports each file that is opened for writing, and each that is finished.

    mark: pipe that takes ``o`` and ``r``.
    """

    def install() -> None:
        def opened(path: object) -> None:
            if not _is_tensorboard(path):
                os.write(mark, b"o")

        on_opening(opened)
        real = os.replace

        def replace(source, target, **options):  # type: ignore[no-untyped-def]
            os.write(mark, b"r")
            real(source, target, **options)

        os.replace = replace  # type: ignore[assignment]

    return install


def _is_tensorboard(path: object) -> bool:
    """Whether a file is one of TensorBoard's, which is opened for every event."""
    return "tfevents" in str(path)


def on_opening(act: Callable[[object], object]) -> None:
    """Call ``act`` with each file that is opened for writing; what it returns is opened instead."""
    real = builtins.open

    def opening(file, mode="r", *arguments, **options):  # type: ignore[no-untyped-def]
        is_named = not isinstance(file, int) and not str(file).startswith("/dev/")
        if is_named and any(letter in mode for letter in "wax+"):
            instead = act(file)
            if instead is not None:
                return real(instead, "wb" if "b" in mode else "w")
        return real(file, mode, *arguments, **options)

    builtins.open = io.open = opening  # type: ignore[assignment]


def observe(words: list[str]) -> Course:
    """Run a command without a fault."""
    reader, writer = os.pipe()
    begin = time.monotonic()
    ended = in_child(words, counting(writer))
    seconds = time.monotonic() - begin
    os.close(writer)
    assert ended.status == 0, ended.text
    with open(reader, "rb") as stream:
        marks = stream.read()
    return Course(marks.count(b"o"), marks.count(b"r"), seconds)


@dataclass(frozen=True)
class World:
    """A corpus, a teacher, and a student of two epochs that another epoch can be added to."""

    root: Path
    corpus: ToneCorpus
    courses: dict[str, Course]
    """Of each command in use; that of ``train_distill`` has all three epochs."""

    @classmethod
    def make(cls, root: Path, commands: Iterable[str] = tuple(COMMANDS)) -> "World":
        """Train the teacher, the student of two epochs, and the same student of three.

        commands: those of ``COMMANDS`` to run on the student of two epochs.
        """
        world = cls(root, make_tone_corpus(root), {})
        for split, seed in (("train", 1), ("dev", 2), ("test", 3)):
            write_split(root / "kaldi", split, ["AB", "BA A", "CAB", "C BC"] * 2, seed=seed)
        observe(world.train(root / "teacher", 1, "train"))
        observe(world.train(root / "student", 2))
        training = world.train(root / "whole", 3, cache="whole/cache")
        world.courses["train_distill"] = observe(training)
        for name in commands:
            world.courses[name] = observe(world.command(name, root / "student"))
            missing = [p for p in world.products(name) if not (root / "student" / p).is_file()]
            assert not missing, f"{name} does not write {missing}"
        return world

    def command(self, name: str, folder: Path) -> list[str]:
        """Return a command on a run's folder; ``train_distill`` adds an epoch to it."""
        if name == "train_distill":
            return self.train(folder, 3)
        places = {
            **{"root": self.root, "run": folder, "kaldi": self.root / "kaldi"},
            **{"train": self.corpus.train_list.parent, "dev": self.corpus.dev_list.parent},
            **{"teacher": self.root / "teacher", "student": self.root / "student"},
            "dict": self.corpus.dict_path,
        }
        return [name, *(word.format(**places) for word in COMMANDS[name].flags.split())]

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
        shutil.copytree(self.root / "student", folder, ignore=shutil.ignore_patterns("cache"))
        return folder

    def without_products(self, name: str) -> Path:
        """Return a copy of the student in which a command has not run yet."""
        folder = self.copy()
        for product in self.products(name):
            (folder / product).unlink()
        return folder

    @staticmethod
    def products(name: str) -> list[str]:
        """Return the files that a command writes into the folder of a run."""
        command = COMMANDS.get(name, Command(""))
        return [*command.makes.split(), *command.leaves.split()]

    def is_as_without_fault(self, name: str, folder: Path) -> bool:
        """Return whether a command has left what it leaves where nothing goes wrong."""
        if name == "train_distill":
            return self._is_whole(folder)
        if not all((folder / product).is_file() for product in self.products(name)):
            return False
        # Other commands may write the same file again, so that only its first writer is compared.
        return all(
            (folder / product).read_bytes() == (self.root / "student" / product).read_bytes()
            for product in COMMANDS[name].makes.split()
        )

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


# What is no damage: a run without that epoch, and transcripts with other words.
VALID_INPUT = ("evaluate_epochs: 0.pt missing", "make_dict: lists/train/text text")


def damage_cases(world: World) -> Iterator[Case]:
    """Every file of a run folder, damaged in every way, before it is resumed or read."""
    for command in world.courses:
        files = COMMANDS[command].reads.split() if command in COMMANDS else RUN_FILES
        for name in files:
            for damage in DAMAGES:
                case = f"{command}: {name} {damage}"
                if case not in VALID_INPUT:
                    yield Case(case, partial(_check_damaged, world, command, name, damage))


def _check_damaged(world: World, command: str, name: str, damage: str) -> tuple[bool, str]:
    folder = world.without_products(command)
    marker = folder / "executed"
    DAMAGES[damage](folder / name, marker)
    words = world.command(command, folder)
    ended = in_child(words)
    if marker.exists():
        return False, "its code was executed"
    if ended.status == 0 and world.is_as_without_fault(command, folder):
        return True, "done as without the fault"
    if ended.status == 0:
        warned = [line for line in ended.text.splitlines() if "WARNING" in line and name in line]
        return bool(warned), " ".join(warned) or "done, but not as without the fault"
    return ended.is_one_line, ended.message.replace(str(folder), "RUN")


# ---- a disk that cannot be written


def fail_at(number: int, code: int) -> Callable[[], None]:
    """Return what makes the n-th file that is opened for writing fail with an error of the system.

    ENOSPC comes when something is written, as from a full disk; other errors when it is opened.
    """

    def install() -> None:
        opened = 0

        def fail(file: object) -> str | None:
            nonlocal opened
            opened += not _is_tensorboard(file)
            if opened <= number:
                return None
            if code != errno.ENOSPC:
                raise OSError(code, os.strerror(code), str(file))
            return "/dev/full"

        on_opening(fail)

    return install


def disk_cases(world: World) -> Iterator[Case]:
    """A disk that is full, or read-only, from the n-th file on."""
    for command, course in world.courses.items():
        for number in range(course.opened):
            for name, code in (("full", errno.ENOSPC), ("read-only", errno.EROFS)):
                check = partial(_check_interrupted, world, command, fault=fail_at(number, code))
                yield Case(f"{command}: disk {name} from file {number}", check)


def _check_interrupted(world: World, command: str, **fault) -> tuple[bool, str]:  # type: ignore[no-untyped-def]
    """Run a command with a fault, then without; the second run must end as if it were the first."""
    folder = world.without_products(command)
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


def signal_cases(world: World, rng: random.Random, num_random: int) -> Iterator[Case]:
    """SIGKILL around every file that is finished; SIGKILL and SIGINT at random moments."""
    for command, course in world.courses.items():
        for number in range(1, course.finished + 1):
            for is_after in (False, True):
                place = f"SIGKILL {'after' if is_after else 'before'} file {number}"
                fault = kill_at(number, is_after)
                check = partial(_check_interrupted, world, command, fault=fault)
                yield Case(f"{command}: {place}", check)
    for command, course in world.courses.items():
        for sent in (signal.SIGKILL, signal.SIGINT):
            for _ in range(num_random if command == "train_distill" else num_random // 4):
                after_s = rng.uniform(0.0, course.seconds)
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


def print_table(kinds: dict[str, list[Case]], chosen_by: Callable[[list[Case]], list[Case]]) -> int:
    """Cause the chosen faults of each kind, print a row per case, return the bad ends."""
    bad = 0
    for kind, found in kinds.items():
        chosen = chosen_by(found)
        head = f"{kind} ({len(chosen)} of {len(found)})"
        print(f"\n| {head} | good | what happens |\n|---|---|---|")
        for case in chosen:
            is_good, end = case.check()
            bad += not is_good
            line = " ".join(end.replace("|", "/").split())
            print(f"| {case.name} | {'yes' if is_good else 'NO'} | {line} |", flush=True)
    print(f"\n{bad} bad ends")
    return bad


def table_flags() -> argparse.ArgumentParser:
    """Return the flags of a command that prints a table of cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="every case instead of a sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of random moments")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    return parser


def choice(args: argparse.Namespace) -> Callable[[list[Case]], list[Case]]:
    """Return what chooses among the cases of a kind, by the flags."""

    def choose(found: list[Case]) -> list[Case]:
        found = [case for case in found if args.only in case.name]
        return found if args.all else random.Random(args.seed).sample(found, min(8, len(found)))

    return choose


def main() -> int:
    """Print the table; the status is 1 if a case ends badly."""
    args = table_flags().parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        return 1 if print_table(cases(world, args.seed), choice(args)) else 0


if __name__ == "__main__":
    sys.exit(main())
