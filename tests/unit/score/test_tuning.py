"""Thresholds chosen on dev: the file beside the model, and what the audio supports."""

import json
import shutil

import pytest

from wekws.bin import tune_threshold
from wekws.errors import ConfigError, DataError
from wekws.files import file_sha256
from wekws.score.det import Budget
from wekws.score.tuning import tune_thresholds
from wekws.stream.threshold_file import read_thresholds, threshold_path


@pytest.fixture
def dev(tmp_path):
    """4 h of negatives with events of 0.9, 0.5 and 0.2; positives at 0.95 and 0.3."""
    rows = [
        ("p1", "JARVIS", 2.0),
        ("p2", "JARVIS", 2.0),
        *((f"n{i}", "OTHER", 4800.0) for i in "123"),
    ]
    lines = [json.dumps({"key": k, "wav": "x", "txt": t, "duration": d}) for k, t, d in rows]
    (tmp_path / "data.list").write_text("\n".join(lines))
    (tmp_path / "avg_3.pt").write_bytes(b"weights")
    folder = tmp_path / "dev_avg_3"
    folder.mkdir()
    scores = {"p1": 0.95, "p2": 0.3, "n1": 0.9, "n2": 0.5, "n3": 0.2}
    text = "".join(f"{key} detected JARVIS {value}\n" for key, value in scores.items())
    (folder / "score.txt").write_text(text)
    info = {
        "checkpoint": str(tmp_path / "avg_3.pt"),
        "checkpoint_sha256": file_sha256(tmp_path / "avg_3.pt"),
        "data_list": str(tmp_path / "data.list"),
        "keywords": ["JARVIS"],
        "refractory_s": 1.0,
        "keyword_durations_s": {"JARVIS": 1.9},
    }
    (folder / "score.json").write_text(json.dumps(info))
    return folder


def test_a_threshold_that_dev_supports(dev):
    # At 2/h, 4 h of audio allow 3 alarms (upper limit 7.75 / 4 = 1.94): all events; at 1.2/h one
    # (4.74 / 4 = 1.19): the threshold lies above 0.5.
    model = dev.parent / "avg_3.pt"
    assert tune_thresholds(dev, budget=Budget(2.0)).keywords[0]["threshold"] == 0
    tuned = tune_thresholds(dev, budget=Budget(1.2))
    assert tuned.path == threshold_path(model) == dev.parent / "avg_3.thresholds.json"
    entry = tuned.keywords[0]
    assert 0.5 < entry["threshold"] < 0.500002 and entry["is_supported"]
    assert (entry["max_duration_s"], entry["false_alarms"]) == (1.9, 1)
    assert entry["misses"]["count"] == 1
    assert entry["note"] == (
        "1 false alarm in 4.00 h of dev only says: below 1.2 per hour (95% sure)"
    )
    assert read_thresholds(model) == {"JARVIS": entry["threshold"]}


def test_what_dev_cannot_support_is_said(dev, capsys, caplog):
    assert tune_threshold.main(["--dev_result_dir", str(dev), "--budget", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "0 false alarms in 4.00 h of dev only says: below 0.75 per hour (95% sure)" in printed
    assert "0.5/h needs 6.0 h" in printed and "avg_3.thresholds.json" in printed
    assert "JARVIS: dev cannot support 0.5/h" in caplog.text


def test_a_count_within_the_budget_is_supported(dev, capsys, caplog):
    # 1 false alarm in 4 h is within 0.25/h by the count; its upper limit is 1.2/h.
    flags = ["--dev_result_dir", str(dev), "--budget", "0.25", "--threshold_rule", "count"]
    assert tune_threshold.main(flags) == 0
    printed = capsys.readouterr().out
    assert "1 false alarm in 4.00 h of dev only says: below 1.2 per hour (95% sure)" in printed
    assert "needs" not in printed and not caplog.records


def test_no_amount_of_audio_supports_a_rate_of_0(dev, capsys, caplog):
    assert tune_threshold.main(["--dev_result_dir", str(dev), "--budget", "0"]) == 0
    printed = capsys.readouterr().out
    assert "(95% sure); no amount of audio supports 0/h" in printed and "inf" not in printed
    assert "JARVIS: dev cannot support 0/h" in caplog.text


def test_thresholds_chosen_on_a_test_set_are_called_so(dev, capsys, caplog):
    (dev.parent / "test").mkdir()
    (dev.parent / "data.list").rename(dev.parent / "test" / "data.list")
    info = json.loads((dev / "score.json").read_text())
    info["data_list"] = str(dev.parent / "test" / "data.list")
    (dev / "score.json").write_text(json.dumps(info))
    assert tune_threshold.main(["--dev_result_dir", str(dev), "--budget", "2"]) == 0
    assert "test/data.list, a test set" in caplog.text and "give the scores of dev" in caplog.text
    printed = capsys.readouterr().out
    assert "on test; 3 false alarms in 4.00 h of test only says" in printed


def test_thresholds_of_another_model_are_refused(dev):
    tune_thresholds(dev, budget=Budget(2.0))
    model = dev.parent / "avg_3.pt"
    model.write_bytes(b"other weights")
    with pytest.raises(DataError, match="made for another avg_3.pt"):
        read_thresholds(model)
    with pytest.raises(ConfigError, match="score dev again"):
        tune_thresholds(dev, budget=Budget(2.0))
    model.unlink()
    with pytest.raises(ConfigError, match="--checkpoint"):
        tune_thresholds(dev, budget=Budget(2.0))


def test_a_copied_folder_gets_thresholds_of_its_own(dev, tmp_path_factory):
    copied = tmp_path_factory.mktemp("copy") / "student"
    shutil.copytree(dev.parent, copied)
    tuned = tune_thresholds(copied / dev.name, budget=Budget(2.0))
    assert tuned.path.parent == copied and read_thresholds(copied / "avg_3.pt")
    assert not read_thresholds(dev.parent / "avg_3.pt")
    (copied / "avg_3.pt").write_bytes(b"another model of this name")
    assert tune_thresholds(copied / dev.name, budget=Budget(2.0)).path.parent == dev.parent


def test_no_file_means_no_thresholds_and_a_damaged_one_is_an_error(dev):
    model = dev.parent / "avg_3.pt"
    assert read_thresholds(model) == {}
    content = {"checkpoint_sha256": file_sha256(model), "keywords": [{"keyword": "A"}]}
    threshold_path(model).write_text(json.dumps(content))
    with pytest.raises(DataError, match="expected keyword and threshold"):
        read_thresholds(model)


def test_one_budget_is_expected(dev):
    with pytest.raises(ConfigError, match="one number"):
        tune_threshold.main(["--dev_result_dir", str(dev), "--budget", "0.5,1"])
