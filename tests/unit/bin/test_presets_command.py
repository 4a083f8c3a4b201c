"""wekws.bin.presets: what each action prints, and the dialogue of `ask`."""

import io
from pathlib import Path

import pytest
import yaml

from wekws.bin.presets import main
from wekws.errors import ConfigError, DataError

CONF = Path(__file__).parents[3] / "conf"
SIZES = {
    "type": "fsmn", "input_affine_dim": 8, "num_layers": 1, "linear_dim": 8, "proj_dim": 4,
    "left_order": 2, "right_order": 1, "output_affine_dim": 8,
}  # fmt: skip


@pytest.fixture
def flags(tmp_path):
    config = {"model": {"backbone": SIZES}, "dataset_conf": {"batch_conf": {"batch_size": 2}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "presets").mkdir()
    for name, epochs in (("a", 9), ("b", 4)):
        content = {"training_config": {"max_epoch": epochs}}
        (tmp_path / "presets" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    small = str(tmp_path / "small.yaml")
    return [
        *("--preset_dir", str(tmp_path / "presets"), "--student_config", small),
        *("--teacher_config", small, "--num_tokens", "5", "--num_threads", "1", "--device", "cpu"),
    ]


class Terminal(io.StringIO):
    """Standard input that a person sits at."""

    def isatty(self):
        return True


def test_list_shows_all_by_length(flags, capsys):
    assert main(["list", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["preset", "b", "a"]
    assert lines[1].count("1.0 x") == 2


def test_show_is_of_one(flags, capsys):
    assert main(["show", "--preset", "a", *flags]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:2])
    assert shown == {"preset": "a", "epochs": "9"}
    with pytest.raises(ConfigError, match="--preset c: expected one of b, a"):
        main(["show", "--preset", "c", *flags])


def test_ask_answers_on_standard_output_alone(flags, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("2\ny\n"))
    assert main(["ask", *flags]) == 0
    said = capsys.readouterr()
    # By length, b comes first.
    assert said.out == "a\n" and "1 b, 2 a" in said.err and "Train a?" in said.err


def test_ask_without_a_terminal_says_to_name_one(flags, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\ny\n"))
    with pytest.raises(ConfigError, match="no terminal to ask on; name one of b, a"):
        main(["ask", *flags])


def test_the_shipped_presets_are_measured(capsys):
    shipped = ["--preset_dir", CONF / "presets", "--teacher_config", CONF / "fsmn_ctc_teacher.yaml"]
    shipped += ["--student_config", CONF / "fsmn_ctc_student_mini.yaml", "--device", "cpu"]
    arguments = ["show", "--preset", "aggressive", "--num_threads", "1", *shipped]
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr().out
    assert "56,148" in said and "7.0 x" in said and "24 x 3" in said


def test_results_of_a_folder_that_is_missing_are_refused(flags, tmp_path):
    with pytest.raises(DataError, match="--exp_dir .*nope: no such folder"):
        main(["results", "--exp_dir", str(tmp_path / "nope"), *flags])
