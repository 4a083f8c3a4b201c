"""The file of thresholds beside a model, and what it refuses."""

import json
from pathlib import Path

import pytest

from wekws.config import load_yaml_with_base
from wekws.errors import DataError
from wekws.files import write_json
from wekws.stream.threshold_file import read_thresholds, threshold_path, write_threshold_file
from wekws.yaml_files import write_yaml

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "avg_2.onnx"
    path.write_bytes(b"a model")
    return path


def test_thresholds_come_back(model_path):
    assert read_thresholds(model_path) == {}
    keywords = [{"keyword": "嗨小问", "threshold": 0.25}, {"keyword": "你好问问", "threshold": 1}]
    write_threshold_file(model_path, {"keywords": keywords})
    assert read_thresholds(model_path) == {"嗨小问": 0.25, "你好问问": 1.0}


def test_thresholds_of_another_temperature_are_refused(tmp_path):
    model_path, soft = tmp_path / "avg_2.pt", tmp_path / "soft.yaml"
    model_path.write_bytes(b"a model")
    write_threshold_file(model_path, {"keywords": [{"keyword": "嗨小问", "threshold": 0.25}]})
    config = load_yaml_with_base(CONF / "fsmn_ctc_student_mini.yaml")
    config["model"]["score_temperature"] = 2.0
    write_yaml(soft, {"model": config["model"]})
    assert read_thresholds(model_path) == {"嗨小问": 0.25}
    with pytest.raises(
        DataError, match="or another score_temperature; choose the thresholds again"
    ):
        read_thresholds(model_path, soft)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (None, "keywords: found None; expected a list"),
        (3, "keywords: found 3; expected a list"),
        ({"嗨小问": 0.5}, "expected a list"),
        (["嗨小问"], "found '嗨小问'; expected keyword and threshold"),
        ([{"keyword": "嗨小问"}], "expected keyword and threshold"),
        ([{"keyword": "嗨小问", "threshold": True}], "True}; expected keyword and threshold"),
        ([{"keyword": "嗨小问", "threshold": float("inf")}], "threshold, 0 to 1"),
        ([{"keyword": "嗨小问", "threshold": 1.5}], "threshold, 0 to 1"),
        ([{"keyword": "嗨小问", "threshold": 10**400}], "threshold, 0 to 1"),
        ([{"keyword": 3, "threshold": 0.5}], "expected keyword and threshold"),
        ([{"threshold": 0.5}], "expected keyword and threshold"),
    ],
)
def test_other_content_is_refused(model_path, keywords, message):
    path = write_threshold_file(model_path, {"keywords": []})
    text = path.read_text("utf-8").replace("[]", json.dumps(keywords))
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=message) as error:
        read_thresholds(model_path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_without_keywords_is_refused(model_path):
    path = write_threshold_file(model_path, {})
    assert path == threshold_path(model_path)
    with pytest.raises(DataError, match="keywords: found None"):
        read_thresholds(model_path)


def test_thresholds_of_another_model_are_refused(model_path):
    write_json(threshold_path(model_path), {"checkpoint_sha256": "0", "keywords": []})
    with pytest.raises(DataError, match="made for another avg_2.onnx"):
        read_thresholds(model_path)
