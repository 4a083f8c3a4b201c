"""Every benchmark starts: its imports exist and --help explains its options."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from wekws.files import read_json
from wekws.model.checkpoint import save_weights
from wekws.model.cmvn import load_cmvn
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config
from wekws.yaml_files import read_yaml, write_yaml

ROOT = Path(__file__).parents[3]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.fixture(scope="module")
def printed_by(python_dir):
    """Run a benchmark with some options and return what it prints."""

    def run(name, *options):
        command = [python_dir / "python", f"benchmarks/{name}.py", *map(str, options)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_help(printed_by, name):
    assert "ratio" in printed_by(name, "--help")


def test_det_benchmark_runs(printed_by):
    assert "operating points" in printed_by("det", "--num_utterances", 200)


def test_transplant_benchmark_runs(printed_by, tone_corpus, tmp_path):
    content = read_yaml(tone_corpus.config_path)
    write_yaml(tmp_path / "teacher" / "config.yaml", content)
    config = read_model_config(tmp_path / "teacher" / "config.yaml")
    torch.manual_seed(0)
    teacher = KwsModel(config, load_cmvn(tone_corpus.cmvn_path, config.input_dim))
    save_weights(teacher.state_dict(), tmp_path / "teacher" / "final.pt")
    content["model"]["backbone"] |= {"num_layers": 1, "linear_dim": 12}
    write_yaml(tmp_path / "student.yaml", content)
    said = printed_by(
        "transplant_rules",
        *("--config", tmp_path / "student.yaml"),
        *("--teacher_checkpoint", tmp_path / "teacher" / "final.pt"),
        *("--train_data", tone_corpus.train_list, "--cv_data", tone_corpus.dev_list),
        *("--dict", tone_corpus.dict_path, "--keywords_file", tone_corpus.keywords_path),
        *("--cache_dir", tmp_path / "cache", "--num_threads", "1", "--seeds", "777"),
        *("--blocks", "1", "--only", "blocks 1: least_squares"),
    )
    rows = [line.split(" | ") for line in said.splitlines()]
    names = [row[0].lstrip("| ") for row in rows[2:]]
    assert names == [
        "random", "constant output", "blocks 1: least_squares, projected head", "teacher",
    ]  # fmt: skip
    # By definition: the random start closes 0 % and the teacher 100 % of the gap.
    assert rows[2][2] == "0.0 %" and rows[-1][2] == "100.0 %"


def test_detector_cost_measures_a_checkpoint(printed_by, tone_corpus, tmp_path):
    for name, source in (
        ("config.yaml", tone_corpus.config_path),
        ("dict.txt", tone_corpus.dict_path),
        ("keywords.txt", tone_corpus.keywords_path),
    ):
        (tmp_path / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    config = read_model_config(tmp_path / "config.yaml")
    save_weights(KwsModel(config).state_dict(), tmp_path / "final.pt")
    said = printed_by(
        *("detector_cost", "--models", f"tones={tmp_path}/final.pt", "--duration_s", 1),
        *("--repeats", 1, "--no_peers", "--out", tmp_path / "cost.json"),
    )
    (row,) = read_json(tmp_path / "cost.json")["systems"]
    # 2 blocks keep 3 + 1 frames of 12 channels, and the validity of 2 frames.
    assert row["name"] == "tones" and row["state_bytes"] == 4 * (2 * 4 * 12 + 2)
    assert 0 < row["chunk_ms"]["p50"] <= row["chunk_ms"]["p99"] and row["real_time_factor"] > 0
    assert f"| tones | {row['params']:,} |" in said


def test_event_rule_compares_two_choices(printed_by, tone_corpus, tmp_path):
    for name, source in (
        ("config.yaml", tone_corpus.config_path),
        ("dict.txt", tone_corpus.dict_path),
        ("keywords.txt", tone_corpus.keywords_path),
    ):
        (tmp_path / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    torch.manual_seed(0)
    model = KwsModel(read_model_config(tmp_path / "config.yaml"))
    save_weights(model.state_dict(), tmp_path / "final.pt")
    said = printed_by(
        *("event_rule", "--checkpoint", tmp_path / "final.pt"),
        *("--list", tone_corpus.dev_list, "--cache_dir", tmp_path / "cache"),
    )
    rows = [line.strip("| ").split(" | ") for line in said.splitlines()[3:]]
    assert len(rows) == 9
    for _, highest_frr, frr, highest, alarms, *_ in rows:
        assert highest_frr == frr and int(highest) <= int(alarms) <= 2 * int(highest)
