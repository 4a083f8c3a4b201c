"""Counting of detections against reference events; values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wekws.bin import score_recordings as command
from wekws.dataset.audio import AudioError
from wekws.dataset.references import COLUMNS, Reference, write_references
from wekws.errors import DataError
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config
from wekws.score.det import Budget
from wekws.score.recordings import (
    Matching,
    ScoredRecording,
    count_at,
    detections_at,
    operating_points,
    points_table,
    threshold_for,
)
from wekws.stream.spotter import Detection

MATCHING = Matching(refractory_s=1.0, tolerance_s=0.5)


def peak(end_s, confidence, keyword="A"):
    return Detection(
        keyword=keyword, confidence=confidence, start_s=end_s - 0.5, end_s=end_s,
        decided_s=end_s + 0.25,
    )  # fmt: skip


def reference(start_s, end_s, keyword="A"):
    return Reference(keyword=keyword, start_s=start_s, end_s=end_s)


def recording(*peaks, hours=0.5):
    references = [reference(10, 11), reference(20, 21), reference(30, 31, "B")]
    ordered = sorted(peaks, key=lambda found: found.end_s)
    return ScoredRecording(hours=hours, references=references, peaks=ordered)


def test_the_first_peak_silences_what_follows():
    peaks = [peak(1.0, 0.5), peak(1.9, 0.9), peak(2.0, 0.5), peak(2.5, 0.4)]
    assert [d.end_s for d in detections_at(peaks, 0.5, 1.0)] == [1.0, 2.0]
    assert [d.end_s for d in detections_at(peaks, 0.6, 1.0)] == [1.9]
    assert detections_at(peaks, 0.4999999, 1.0) == detections_at(peaks, 0.5, 1.0)


def test_hits_misses_alarms_confusions_and_latency():
    scored = recording(
        peak(10.9, 0.8),  # hit, decided 0.15 s after the end of the keyword
        peak(20.0, 0.8),  # hit, decided 0.75 s before its end
        peak(21.4, 0.8),  # the second at one reference: false alarm
        peak(5.0, 0.8),  # false alarm
        peak(31.5, 0.8),  # at a keyword B: confusion
        peak(31.0, 0.8, "B"),
    )
    counts = count_at([scored], "A", 0.5, MATCHING)
    assert (counts.num_references, counts.hits) == (2, 2)
    assert (counts.false_alarms, counts.confusions, counts.hours) == (2, 1, 0.5)
    assert counts.latencies_s == pytest.approx((0.15, -0.75))
    content = counts.to_json()
    assert content["false_alarms"]["per_hour"] == 4.0
    assert content["latency_s"] == {"p50": -0.3, "p95": 0.105}
    # Poisson 95 % of a count of 2: 0.242 to 7.225
    assert content["false_alarms"]["low"] == pytest.approx(0.484, abs=1e-3)
    assert content["false_alarms"]["high"] == pytest.approx(14.449, abs=1e-3)


def test_tolerance_is_a_limit_on_both_sides():
    for end_s, hits in ((9.4, 0), (9.5, 1), (11.5, 1), (11.6, 0)):
        assert count_at([recording(peak(end_s, 0.8))], "A", 0.5, MATCHING).hits == hits


def test_threshold_of_a_budget():
    scored = recording(peak(5, 0.9), peak(10.5, 0.7), peak(15, 0.6), peak(20.5, 0.5))
    # in half an hour: 0.9 and 0.6 are false alarms
    for per_hour, expected in ((0.0, 1.0), (2.0, 0.7), (4.0, 0.5)):
        assert threshold_for([scored], "A", Budget(per_hour), MATCHING) == expected


def test_points_of_all_keywords_together():
    scored = recording(peak(10.5, 0.7), peak(30.5, 0.6, "B"), peak(50, 0.6, "B"))
    points = operating_points([scored], {"A": 0.5, "B": 0.5}, [Budget(0.0)], MATCHING)
    given, own = points
    assert given["mean_frr"] == 0.25 and given["all"]["misses"]["count"] == 1
    # one false alarm in 0.5 h of two keywords
    assert given["all"]["false_alarms"]["per_hour"] == 1.0
    assert own["point"] == "0/h of its own curve" and own["all"]["false_alarms"]["count"] == 0
    table = points_table({"x": points})
    assert "| x | its thresholds | 2 | 33.3 (6.1 to 79.2), 1 of 3 | 25.0 | 1 | 1.00" in table
    assert len(operating_points([scored], {"A": None}, [], MATCHING)) == 0


@pytest.fixture
def model_folder(tone_corpus, tmp_path, monkeypatch):
    """Current folder with an untrained model of 嗨小问 and two recordings of noise."""
    for name, source in (
        ("config.yaml", tone_corpus.config_path),
        ("dict.txt", tone_corpus.dict_path),
        ("keywords.txt", tone_corpus.keywords_path),
    ):
        (tmp_path / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    torch.manual_seed(0)
    config = read_model_config(tmp_path / "config.yaml")
    save_weights(KwsModel(config).state_dict(), tmp_path / "final.pt")
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(32000), 16000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLAGS = ("--checkpoint", "final.pt", "--references", "r.tsv", "--threshold", "0.99")


def test_the_command_scores_a_recording(model_folder, capsys):
    events = [Reference(keyword="嗨小问", start_s=0.5, end_s=1.0)]
    write_references("r.tsv", "a.wav", events)
    assert command.main([*FLAGS, "b.wav", "--out", "scored.json"]) == 0
    printed = capsys.readouterr().out
    assert "| final.pt | its thresholds | 1 |" in printed
    assert "嗨小问: threshold 0.99, missed 1 of 1, 0 false alarms" in printed
    assert (model_folder / "scored.json").is_file()


def test_a_recording_named_twice_is_scored_once(model_folder, monkeypatch, capsys):
    scored = []
    monkeypatch.setattr(
        command, "score_recording", lambda _, path, events, **__: (
            scored.append(path.name), ScoredRecording(hours=1.0, references=events, peaks=())
        )[1],
    )  # fmt: skip
    write_references("r.tsv", "a.wav", [])
    assert command.main([*FLAGS, str(model_folder / "a.wav"), "./b.wav", "b.wav"]) == 0
    assert scored == ["a.wav", "b.wav"]


def test_a_missing_recording_ends_it_before_any_is_scored(model_folder, monkeypatch):
    monkeypatch.setattr(command, "score_recording", lambda *_, **__: pytest.fail("scored"))
    Path("r.tsv").write_text(f"{chr(9).join(COLUMNS)}\na.wav\t\t\t\nmissing.wav\t\t\t\n")
    with pytest.raises(AudioError, match=r"missing\.wav"):
        command.main([*FLAGS])


def test_keywords_that_the_model_lacks_are_named(model_folder, capsys, caplog):
    write_references("r.tsv", "a.wav", [reference(0.1, 0.5, "ALEXA")])
    assert command.main([*FLAGS]) == 0
    assert "ALEXA: in the references, but no keyword of the model" in caplog.text
    assert "missed 0 of 0" in capsys.readouterr().out


def test_an_event_after_the_end_of_its_recording_is_refused(model_folder):
    # a.wav has 2 s; labels are rounded
    write_references("r.tsv", "a.wav", [reference(1.5, 2.05, "嗨小问")])
    assert command.main([*FLAGS]) == 0
    write_references("r.tsv", "a.wav", [reference(99998, 99999, "嗨小问")])
    with pytest.raises(DataError, match=r"r.tsv: 嗨小问 from 99998 to 99999 s, but a.wav"):
        command.main([*FLAGS])
