"""The README's example of a new distillation loss: one file and one line, in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wekws.bin import train
from wekws.runlog.metrics_reader import read_metrics

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy_with_new_loss(tmp_path):
    shutil.copytree(ROOT / "wekws", tmp_path / "copy/wekws")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Adding a distillation loss")[1].split("\n## ")[0]
    new_file, line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    distill = tmp_path / "copy/wekws/distill"
    (distill / "entropy.py").write_text(new_file, encoding="utf-8")
    methods = (distill / "methods.py").read_text(encoding="utf-8")
    last = "    inner: InnerConfig = field(default_factory=InnerConfig)\n"
    assert methods.count(last) == 1
    methods = methods.replace(last, last + line)
    imported = "from wekws.distill.guide import GuideConfig\n"
    methods = methods.replace(
        imported, "from wekws.distill.entropy import EntropyConfig\n" + imported
    )
    (distill / "methods.py").write_text(methods, encoding="utf-8")
    return tmp_path / "copy"


def test_a_new_loss_is_one_file_and_one_line(copy_with_new_loss, train_arguments, tmp_path):
    short = ["--override", "training_config.max_epoch=1"]
    train.main([*train_arguments, "--model_dir", str(tmp_path / "teacher"), *short])
    command = [
        *(sys.executable, "-m", "wekws.bin.train_distill", *train_arguments, *short),
        *("--teacher_checkpoint", str(tmp_path / "teacher/final.pt")),
        *("--model_dir", str(tmp_path / "student")),
        *("--override", "distill_conf.entropy.weight=0.1"),
        *("--override", "training_config.gradient_interval=1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy_with_new_loss)}
    done = subprocess.run(
        command, cwd=copy_with_new_loss, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_metrics(tmp_path / "student")
    steps = [row for row in rows if row["kind"] == "step"]
    assert all(row["entropy"] > 0 for row in steps)
    assert steps[-1]["weighted_entropy"] == pytest.approx(0.5 * 0.1 * steps[-1]["entropy"])
    assert any("grad_share_entropy" in row for row in rows if row["kind"] == "gradient")
    assert all("cv_entropy" in row for row in rows if row["kind"] == "cv")
