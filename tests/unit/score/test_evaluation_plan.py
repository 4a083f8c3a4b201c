"""Folders of an evaluation, and which results count as done. tests/recipe runs evaluate.sh."""

import json
import os
from pathlib import Path

import pytest

from wekws.config import load_yaml_with_base
from wekws.dataset.manifest import Utterance, audio_status, write_data_list
from wekws.errors import ConfigError, DataError
from wekws.files import file_sha256
from wekws.score.evaluation_plan import plan_evaluation
from wekws.yaml_files import write_yaml

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture
def model(tmp_path):
    """A checkpoint with dev and test lists, and scores of both."""
    folder, lists = tmp_path / "exp", tmp_path / "lists"
    folder.mkdir()
    (folder / "avg_3.pt").write_bytes(b"weights")
    (folder / "keywords.txt").write_text("JARVIS\n")
    for split in ("dev", "test"):
        (lists / split).mkdir(parents=True)
        (lists / split / "data.list").write_text("")
        info = {
            "checkpoint_sha256": file_sha256(folder / "avg_3.pt"),
            "decoder": "keyword",
            "max_duration_s": "auto",
            "keywords": ["JARVIS"],
            "data_list": str(lists / split / "data.list"),
        }
        (folder / f"{split}_avg_3").mkdir()
        (folder / f"{split}_avg_3" / "score.json").write_text(json.dumps(info))
    train_list = str(lists / "train" / "data.list")
    (folder / "run.json").write_text(json.dumps({"train_data": train_list}))
    return folder / "avg_3.pt"


def plan(model, **changes):
    options = {"dataset": "test", "lists": None, "decoder": "keyword", "budgets": "1"}
    return plan_evaluation(model, **(options | changes))


def test_scores_of_the_same_checkpoint_and_list_are_done(model):
    done = plan(model)
    assert done.lists == model.parents[1] / "lists"
    assert done.result_dir == model.parent / "test_avg_3"
    assert done.dev_dir == model.parent / "dev_avg_3"
    # Scores alone: nothing has been counted from them.
    assert (done.is_scored, done.is_dev_scored, done.is_counted) == (True, True, False)


def test_dev_chooses_its_own_thresholds(model):
    on_dev = plan(model, dataset="dev")
    assert (on_dev.dev_dir, on_dev.is_scored, on_dev.is_dev_scored) == (None, True, True)


def test_another_decoder_has_a_folder_of_its_own(model):
    other = plan(model, decoder="prefix_beam")
    assert other.result_dir.name == "test_avg_3_prefix_beam" and not other.is_scored


def test_another_longest_duration_is_scored_again(model):
    assert not plan(model, max_duration_s=2.0).is_scored
    assert not plan(model, max_duration_s=0.0).is_scored
    for split in ("dev", "test"):  # scores from before there was a limit
        path = model.parent / f"{split}_avg_3" / "score.json"
        info = json.loads(path.read_text())
        del info["max_duration_s"]
        path.write_text(json.dumps(info))
    assert not plan(model).is_scored and not plan(model).is_dev_scored
    old = plan(model, max_duration_s=0.0)
    assert old.is_scored and old.is_dev_scored


@pytest.mark.parametrize("change", ["checkpoint", "keywords", "list", "damage"])
def test_scores_of_anything_else_are_not(model, change):
    score_json = model.parent / "test_avg_3" / "score.json"
    if change == "checkpoint":
        model.write_bytes(b"other weights")
    elif change == "keywords":
        (model.parent / "keywords.txt").write_text("JARVIS\nALEXA\n")
    elif change == "list":
        later = score_json.stat().st_mtime + 10
        os.utime(model.parents[1] / "lists" / "test" / "data.list", (later, later))
    else:
        score_json.write_text("{")
    assert not plan(model).is_scored


def test_another_temperature_is_scored_again(model):
    config = load_yaml_with_base(CONF / "fsmn_ctc_student_mini.yaml")
    write_yaml(model.parent / "config.yaml", {"model": config["model"]})
    assert plan(model).is_scored
    config["model"]["score_temperature"] = 2.0
    write_yaml(model.parent / "config.yaml", {"model": config["model"]})
    assert not plan(model).is_scored and not plan(model).is_dev_scored


def test_without_a_record_of_training_the_lists_must_be_named(model):
    (model.parent / "run.json").unlink()
    with pytest.raises(ConfigError, match="run.json: names no training list; give --lists"):
        plan(model)
    assert plan(model, lists=model.parents[1] / "lists").is_scored
    (model.parent / "run.json").write_text("{")
    with pytest.raises(DataError, match="run.json: not readable as JSON"):
        plan(model)


def test_replaced_audio_is_scored_again(model, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    utterances = [Utterance(key="a", wav=str(tmp_path / "a.wav"), txt="JARVIS", duration=1.0)]
    data_list = model.parents[1] / "lists" / "test" / "data.list"
    write_data_list(data_list, utterances)
    path = model.parent / "test_avg_3" / "score.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"audio": audio_status(utterances)}))
    assert plan(model).is_scored
    (tmp_path / "a.wav").write_bytes(b"RIFF and more")
    assert not plan(model).is_scored
