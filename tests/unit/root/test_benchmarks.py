"""Every benchmark starts: its imports exist and --help explains its options."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
BENCHMARKS = ["train_step", "decode", "det", "memory_block"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_help(name):
    command = [sys.executable, f"benchmarks/{name}.py", "--help"]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "ratio" in result.stdout


def test_det_benchmark_runs():
    command = [sys.executable, "benchmarks/det.py", "--num_utterances", "200"]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert "operating points" in result.stdout, result.stderr
