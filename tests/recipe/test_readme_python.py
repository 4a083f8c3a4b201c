"""The README's lines of Python run as they stand, on the tones instead of the demo's corpus."""

import re
import subprocess
import sys
from pathlib import Path

from wekws.files import read_json

ROOT = Path(__file__).parents[2]
SMALL = ("--num_workers", 0, "--num_threads", 1, "--device", "cpu", "--units", "letters",
         "--num_processes", 1)  # fmt: skip


def readme_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## From Python")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


def test_the_lines_distil_average_score_and_summarise(recipe, tone_folder):
    recipe.run(
        "run_distill.sh",
        *("--data_dir", tone_folder, "--name", "synth_small", "--keywords", "ab, ba a"),
        *("--teacher_config", "teacher.yaml", "--student_config", "student.yaml"),
        *("--overlay", "none", "--base_epochs", 1, "--teacher_epochs", 2, "--num_average", 2),
        *("--num_tokens", 4, "--stop_stage", 2, *SMALL),
    )
    # The demo's teacher is an average of 4 epochs and its student has a configuration in conf/.
    code = (
        readme_lines()
        .replace("avg_4.pt", "avg_2.pt")
        .replace("conf/fsmn_ctc_student_mini.yaml", "student.yaml")
        .replace("max_epoch=8", "max_epoch=2")
        .replace("average_model(student, 4)", "average_model(student, 2)")
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=recipe.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.strip().splitlines()
    assert [line.split(" {")[0] for line in lines] == ["AB", "BA A"]
    summary = read_json(recipe.folder / "exp/python/student/test/summary.json")
    assert {entry["keyword"] for entry in summary["keywords"]} == {"AB", "BA A"}
