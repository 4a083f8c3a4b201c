"""Transcript of `run_distill.sh --dry_run`: five usual commands and five wrong ones.

python tests/dry_runs.py >examples/DRY_RUNS.md

The commands run in a folder that has the shipped configurations, two folders of recordings and a
teacher, and nothing else. A test compares the file with what the commands print now, times left
out.
"""

import contextlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from wekws.bin import plan_recipe
from wekws.config import load_yaml_with_base
from wekws.errors import ConfigError, DataError
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config
from wekws.yaml_files import write_yaml

ROOT = Path(__file__).resolve().parents[1]
TEACHER = "exp/big/teacher/avg_30.pt"
COMMANDS = {
    "Usual commands": {
        "The demo corpus, all defaults": "",
        "Own recordings, with negatives": (
            "--data_dir recordings --keywords 'JARVIS,SMART MIRROR' --negatives negatives"
        ),
        "A preset with another temperature": "--preset balanced --temperature 4",
        "A teacher that exists, and a student in three stages": (
            f"--teacher_checkpoint {TEACHER} --student_epochs 40 "
            "--student_overlay conf/overlays/stages_three.yaml"
        ),
        "A wake word from its text alone": "--keywords 'HEY ORCHARD' --from_text",
    },
    "Wrong commands": {
        "A misspelt schedule": "--alpha cosine_grwoth",
        "A file that does not exist": "--student_overlay conf/overlays/gates.yaml",
        "A preset that does not exist": "--preset balaced",
        "A stage before those that it needs": "--stage 3",
        "An option that does not exist": "--student_epoch 20",
    },
}
HEAD = """# What --dry_run prints

`bash run_distill.sh ... --dry_run` checks every option and file, prints the plan with the estimated
time, and stops. Without `--dry_run` the same lines come first. Here are five usual commands and
five wrong ones. Times are those of two cores of an Intel Xeon with AMX, from the CPU time of a few
steps and features; where a run has been begun, they come from its own log.

Made by `python tests/dry_runs.py >examples/DRY_RUNS.md`.
"""


def defaults() -> list[str]:
    """Return the option block of the script as it passes it on."""
    block = (ROOT / "run_distill.sh").read_text("utf-8").partition(". tools/parse_options.sh")[0]
    return [f"{n}={value}" for n, value in re.findall(r"^([a-z]\w*)=(\S*)", block, re.MULTILINE)]


def make_project(folder: Path) -> None:
    """Make the folder that the commands run in."""
    (folder / "conf").symlink_to(ROOT / "conf")
    for split in ("train", "dev", "test"):
        write_recordings(folder / "recordings" / split)
        write_noise(folder / "negatives" / split / "street.wav", 1800.0)
    write_noise(folder / "recordings/u.wav", 2.0)
    write_model(folder / TEACHER, "fsmn_ctc_teacher.yaml", 20)


def write_recordings(folder: Path, num: int = 2000) -> None:
    """Write the lists of a split; all utterances are one file."""
    folder.mkdir(parents=True)
    for table, values in (("wav.scp", ["u.wav"]), ("text", ["JARVIS", "SMART MIRROR"])):
        rows = zip(range(num), itertools.cycle(values), strict=False)
        (folder / table).write_text("".join(f"u{i} {value}\n" for i, value in rows))


def write_noise(path: Path, seconds: float) -> None:
    """Write a recording of noise at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    samples = 0.05 * rng.standard_normal(round(16_000 * seconds), np.float32)
    soundfile.write(path, samples, 16_000, subtype="PCM_16")


def write_model(checkpoint: Path, config: str, output_dim: int) -> None:
    """Write a model with random weights and its configuration of conf/ beside it."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    sizes = read_model_config(ROOT / "conf" / config).with_output_dim(output_dim)
    cmvn = (torch.zeros(sizes.input_dim), torch.ones(sizes.input_dim))
    save_weights(KwsModel(sizes, cmvn).state_dict(), checkpoint)
    shown = load_yaml_with_base(ROOT / "conf" / config)
    shown["model"]["output_dim"] = output_dim
    write_yaml(checkpoint.with_name("config.yaml"), shown)


def printed(flags: str) -> str:
    """Return what the script prints in the current folder for these flags and --dry_run."""
    words = shlex.split(flags)
    given = dict(zip((word[2:] for word in words[::2]), words[1::2], strict=False))
    given |= {"from_text": "true"} if "--from_text" in words else {}
    names = {assignment.partition("=")[0] for assignment in defaults()}
    if "--from_text" in words:
        rest = words[: words.index("--from_text")] + words[words.index("--from_text") + 1 :]
        given |= dict(zip((word[2:] for word in rest[::2]), rest[1::2], strict=True))
        given = {name: value for name, value in given.items() if name in names}
    if unknown := [name for name in given if name not in names]:
        script = ROOT / "run_distill.sh"
        command = ["bash", script.name, f"--{unknown[0]}", given[unknown[0]]]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stderr.strip()
    said = io.StringIO()
    assignments = [*defaults(), *(f"{name}={value}" for name, value in given.items())]
    try:
        with contextlib.redirect_stdout(said):
            plan_recipe.main(["--caller_dir", ".", "--", *assignments])
    except (ConfigError, DataError) as error:
        return f"error: {error}"
    script = f'{said.getvalue()}\necho "plan: stages -2 to 6"\necho "$plan_summary"'
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


def transcript() -> str:
    """Return the file as Markdown; the commands run in a folder of their own."""
    before, parts = Path.cwd(), [HEAD]
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "project"
        project.mkdir()
        make_project(project)
        os.chdir(project)
        try:
            for heading, commands in COMMANDS.items():
                parts.append(f"## {heading}\n")
                for title, flags in commands.items():
                    line = f"$ bash run_distill.sh {flags}{' ' if flags else ''}--dry_run"
                    parts.append(f"**{title}**\n\n```\n{line}\n{printed(flags)}\n```\n")
        finally:
            os.chdir(before)
    return "\n".join(parts)


def without_times(text: str) -> str:
    """Return a transcript without the lines of the plan that hold estimated times."""
    names = ("time", "  base", "  teacher", "  student", "  data", "  results")
    return "\n".join(
        line
        for line in text.splitlines()
        if not line.startswith(tuple(f"   {name} " for name in names)) or "->" in line
    )


if __name__ == "__main__":
    sys.stdout.write(transcript())
