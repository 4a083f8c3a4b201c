"""Signals at random moments of the shell stages, of evaluate.sh and of ablations; their table.

python tests/faults/recipe_faults.py [--all] [--seed 0] [--only TEXT] [--last STEP]

Each case puts the folders back to where they were before a step, starts the step in a session of
its own, and sends a signal at a random moment: SIGKILL to all of its processes (the machine goes
off), SIGKILL to the first of them alone (what a careful user does with `kill -9`), or SIGINT to all
of them (Ctrl-C). Then no process may go on working, and the step, done again, must leave the files
that it leaves without a fault.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / part) for part in ("", "tests", "tests/faults", "tests/recipe")]

import numpy as np  # noqa: E402
import yaml  # noqa: E402
from fault_cases import Case, choice, print_table, table_flags  # noqa: E402
from recipe_copy import CONFIGS, SMALL, Recipe, new_recipe  # noqa: E402
from tones import write_split, write_tones  # noqa: E402

LISTS, EXP = "data/tones", "exp/tones"
EPOCHS = (
    *("--base_epochs", 1, "--teacher_epochs", 2, "--student_epochs", 2, "--num_average", 2),
    *("--num_tokens", 4),
)
# Files whose bytes are the same each time; the others hold times, paths or timings.
SAME_BYTES = re.compile(
    r".*\.(txt|list|npy|tsv|scp|wav|onnx)$|.*/(\d+|final|best|avg_\d+|init|best_frr)\.pt$"
    r"|.*/(text|utt2spk|utt2dur|utt2category|global_cmvn|summary\.json)$"
)
# Locks, traces of interrupted writing, and what only an interrupted run leaves.
LEFT_OUT = re.compile(
    r".*(\.lock|/lock|\.tmp|/run\.log|\.partial|/stage_times\.txt)$|.*/\.[^/]*\.tmp/.*"
)
LONGEST_S = 600


@dataclass(frozen=True)
class Step:
    """A command of a user."""

    name: str
    """Name in the table."""
    words: tuple[str, ...]
    """The command."""
    seconds: float
    """How long it takes without a fault."""


@dataclass(frozen=True)
class RecipeWorld:
    """A copy of the recipe in which every step has run once, and the folders after each."""

    recipe: Recipe
    snapshots: Path
    """Folder with ``before/STEP`` and ``after/STEP``."""
    steps: list[Step] = field(default_factory=list)
    """All of them, in order."""

    @classmethod
    def make(cls, root: Path, last: str = "") -> "RecipeWorld":
        """Write a corpus of tones and run the steps, up to ``last``; empty: all of them."""
        corpus, negatives = root / "tones", root / "negatives"
        for split, seed in (("train", 1), ("dev", 2), ("test", 3)):
            num = 4 if split == "train" else 2
            write_split(corpus, split, ["AB", "BA A", "CAB", "C BC", "BA A C"] * num, seed=seed)
            (negatives / split / "tv").mkdir(parents=True)
            write_tones(negatives / split / "tv" / "a.wav", "问问", np.random.default_rng(seed))
        world = cls(new_recipe(root / "recipe", Path(sys.executable).parent), root / "snapshots")
        for name, words in world.commands(corpus, negatives):
            world.observe(name, words)
            if name == last:
                break
        return world

    def commands(self, corpus: Path, negatives: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the steps in the order of the recipe."""
        run_distill = (
            *("bash", "run_distill.sh", "--data_dir", corpus, "--keywords", "AB,BA A", *CONFIGS),
            *("--overlay", "none", "--negatives", negatives, *EPOCHS, *SMALL),
        )
        synthesis = ("--corpus", "synth", "--size", "tiny", "--num_workers", 1)
        stages = {"stage -2": (*("bash", "run_distill.sh"), *synthesis, "--stop_stage", -2)}
        for stage in range(-1, 7):
            one = ("--stage", stage, "--stop_stage", stage)
            stages[f"stage {stage}"] = (*run_distill, *one)
        for name, words in stages.items():
            yield name, tuple(map(str, words))
        checkpoint = f"{EXP}/student/0.pt"
        yield "evaluate.sh", ("bash", "evaluate.sh", "--checkpoint", checkpoint, "--device", "cpu")
        yield (
            "evaluate.sh --epochs",
            ("bash", "evaluate.sh", "--checkpoint", f"{EXP}/student/final.pt", "--epochs", "all"),
        )
        plan = {
            "question": "does the teacher help",
            "student_config": "student.yaml",
            "axes": {"alpha": {"key": "distill_conf.alpha", "values": [0.3, 1.0]}},
            **{"epochs": 2, "seeds": [1], "num_average": 1},
        }
        (self.recipe.folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        yield (
            "ablate",
            (
                *(sys.executable, "-m", "wekws.bin.ablate", "--plan", "plan.yaml"),
                *("--lists", LISTS, "--teacher_checkpoint", f"{EXP}/teacher/avg_2.pt"),
                *("--out_dir", "exp/ablation", "--num_jobs", "1"),
            ),
        )

    def observe(self, name: str, words: tuple[str, ...]) -> None:
        """Run a step without a fault; keep the folders before and after it."""
        self.keep(f"before/{name}")
        begin = time.monotonic()
        done = self.start(words)
        text, _ = done.communicate(timeout=LONGEST_S)
        assert done.returncode == 0, text
        self.steps.append(Step(name, words, time.monotonic() - begin))
        self.keep(f"after/{name}")

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command in the recipe's folder and in a session of its own."""
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": ":".join(paths)}
        return subprocess.Popen(
            words,
            cwd=self.recipe.folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )

    def keep(self, name: str) -> None:
        """Copy data and exp, with the times of their files."""
        for part in ("data", "exp"):
            (self.recipe.folder / part).mkdir(exist_ok=True)
            shutil.copytree(self.recipe.folder / part, self.snapshots / name / part)

    def put_back(self, name: str) -> None:
        """Restore data and exp."""
        for part in ("data", "exp"):
            shutil.rmtree(self.recipe.folder / part)
            shutil.copytree(self.snapshots / name / part, self.recipe.folder / part)

    def differences(self, step: Step) -> list[str]:
        """Return the files that are not what the step leaves without a fault."""
        there, expected = (
            _files(folder) for folder in (self.recipe.folder, self.snapshots / "after" / step.name)
        )
        in_both = sorted(there.keys() & expected.keys())
        others = [
            name
            for name in filter(SAME_BYTES.fullmatch, in_both)
            if there[name].read_bytes() != expected[name].read_bytes()
        ]
        return sorted(there.keys() ^ expected.keys()) + others


def _heed_interrupts() -> None:
    """Let a child be interrupted even if this process runs in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of data and exp by name; TensorBoard's names have the time in them."""
    paths = [p for part in ("data", "exp") for p in (folder / part).rglob("*") if p.is_file()]
    named = {re.sub(r"tfevents.*", "tfevents", str(p.relative_to(folder))): p for p in paths}
    return {name: path for name, path in named.items() if not LEFT_OUT.fullmatch(name)}


def processes_of(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name in parentheses: state, parent, group, session.
            state, _, _, of = status.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state not in "ZX":
            found.append(int(status.parent.name))
    return found


SIGNALS = {
    "SIGKILL of all its processes": (signal.SIGKILL, True),
    "SIGKILL of the first alone": (signal.SIGKILL, False),
    "SIGINT": (signal.SIGINT, True),
}


def recipe_cases(world: RecipeWorld, rng: random.Random, num_random: int) -> Iterator[Case]:
    """Every step, with every signal, at random moments."""
    for step in world.steps:
        for name, (sent, is_to_all) in SIGNALS.items():
            for _ in range(num_random):
                after_s = rng.uniform(0.0, step.seconds)
                check = partial(_check_interrupted, world, step, after_s, sent, is_to_all)
                yield Case(f"{step.name}: {name} after {after_s:.1f} s", check)


def _check_interrupted(
    world: RecipeWorld, step: Step, after_s: float, sent: signal.Signals, is_to_all: bool
) -> tuple[bool, str]:
    world.put_back(f"before/{step.name}")
    first = world.start(step.words)
    try:
        text, _ = first.communicate(timeout=after_s)
        end = "not reached"
    except subprocess.TimeoutExpired:
        (os.killpg if is_to_all else os.kill)(first.pid, sent)
        # A command that goes on without its script ends by itself.
        text, _ = first.communicate(timeout=LONGEST_S)
        end = f"status {first.returncode}"
        if sent == signal.SIGINT and first.returncode == 0:
            return False, "the interrupt was ignored"
    if _has_traceback(text):
        return False, f"{end}: {text[-400:]}"
    deadline = time.monotonic() + 30
    while left := processes_of(first.pid):
        if time.monotonic() > deadline:
            os.killpg(first.pid, signal.SIGKILL)
            return False, f"{end}; processes are left: {left}"
        time.sleep(0.2)
    second = world.start(step.words)
    text, _ = second.communicate(timeout=LONGEST_S)
    if second.returncode != 0:
        return False, f"{end}; the second time: {text[-400:]}"
    wrong = world.differences(step)
    if wrong:
        return False, f"{end}; then differs: {', '.join(wrong[:6])}"
    return True, f"{end}; then done as without the fault"


def _has_traceback(text: str) -> bool:
    """Return whether there is a traceback of the project's code; Python prints its own ones.

    An interrupt in the first moments of a process meets Python before any line of the project.
    """
    return "Traceback" in text and any(f'"{ROOT / part}/' in text for part in ("wekws", "examples"))


def main() -> int:
    """Print the table; the status is 1 if a case ends badly."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], parents=[table_flags()], add_help=False
    )
    parser.add_argument("--num_moments", type=int, default=2, help="per step and signal [2]")
    parser.add_argument("--last", default="", help="last step to run, such as 'stage 3' [all]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = RecipeWorld.make(Path(folder), args.last)
        rng = random.Random(args.seed)
        found = {"shell": list(recipe_cases(world, rng, args.num_moments))}
        return 1 if print_table(found, choice(args)) else 0


if __name__ == "__main__":
    sys.exit(main())
