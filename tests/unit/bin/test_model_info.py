import json
from pathlib import Path

import pytest

from wekws.bin.model_info import main
from wekws.errors import ConfigError
from wekws.yaml_files import write_yaml

CONF = Path(__file__).parents[3] / "conf"

# DESIGN's table, and the students with a merged head.
TABLE = [
    ("base", 2599, 756_133),
    ("teacher", 2599, 756_133),
    ("teacher", 20, 392_494),
    ("teacher", 440, 451_714),
    ("student_mini", 20, 135_636),
    ("student_mid", 20, 243_316),
    ("student_aligned", 20, 199_760),
    ("student_s1", 20, 96_836),
    ("student_s2", 20, 85_484),
    ("student_s3", 20, 74_132),
    ("student_s4", 20, 62_780),
    ("student_s5", 20, 51_428),
]


def info(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "num_tokens", "params"), TABLE)
def test_shipped_models_have_the_published_sizes(capsys, name, num_tokens, params):
    path = CONF / f"fsmn_ctc_{name}.yaml"
    cost = json.loads(info(capsys, "--config", path, "--num_tokens", num_tokens, "--json"))
    assert cost["params"] == params == sum(cost["params_by_part"].values())
    assert cost["size_bytes"]["fp32"] == 4 * (params + 800)


def test_json_holds_what_scripts_read(capsys):
    out = info(capsys, "--config", CONF / "fsmn_ctc_student_mini.yaml", "--json")
    cost = json.loads(out)
    assert set(cost) >= {
        "params",
        "params_by_part",
        "macs_per_second",
        "receptive_field_ms",
        "lookahead_ms",
        "size_bytes",
    }
    assert set(cost["size_bytes"]) == {"fp32", "fp16", "int8"}
    # 3 blocks of 9 back and 2 ahead at 30 ms, 4 spliced frames, a 25 ms window.
    assert cost["receptive_field_ms"] == 3 * 11 * 30 + 40 + 25
    assert cost["lookahead_ms"] == 3 * 2 * 30 + 20 + 25


def test_table_is_readable(capsys):
    out = info(capsys, "--config", CONF / "fsmn_ctc_teacher.yaml")
    assert "20 tokens" in out and "392,494" in out and "fsmn.3" in out and "285 ms" in out


def test_front_end_comes_from_the_file(capsys, tmp_path):
    path = tmp_path / "c.yaml"
    base = str(CONF / "fsmn_ctc_teacher.yaml")
    write_yaml(path, {"base": base, "dataset_conf": {"frame_skip": 1, "context_expansion": False}})
    cost = json.loads(info(capsys, "--config", path, "--json"))
    assert cost["lookahead_ms"] == 8 * 10 + 25


def test_a_vocabulary_size_is_needed(tmp_path):
    path = tmp_path / "c.yaml"
    write_yaml(path, {"base": str(CONF / "fsmn_ctc_base.yaml"), "model": {"output_dim": 0}})
    with pytest.raises(ConfigError, match="give --num_tokens"):
        main(["--config", str(path)])
    with pytest.raises(ConfigError, match="at least 1"):
        main(["--config", str(path), "--num_tokens", "0"])
