"""Score files: what is written is read, and what is wrong is named."""

import numpy as np
import pytest

from wekws.decode.event_rule import Event
from wekws.errors import DataError
from wekws.files import write_json
from wekws.score.scores import (
    REJECTED,
    ScoredUtterance,
    read_score_info,
    read_scores,
    read_timed_events,
    write_scores,
)

SCORED = [
    ScoredUtterance("utt1", {"嗨小问": [Event(0.596, 3, 9)], "SMART MIRROR": []}),
    ScoredUtterance("utt2", {"嗨小问": [], "SMART MIRROR": []}),
    ScoredUtterance(
        "utt3", {"嗨小问": [Event(1e-9, 0, 0)], "SMART MIRROR": [Event(0.2, 1, 2), Event(1, 9, 9)]}
    ),
]


def test_written_and_read(tmp_path):
    write_scores(tmp_path, SCORED, 0.03)
    assert (tmp_path / "score.txt").read_text(encoding="utf-8").splitlines() == [
        "utt1 detected 嗨小问 0.596",
        "utt2 rejected",
        "utt3 detected 嗨小问 1e-09",
        "utt3 detected SMART_MIRROR 1",
        "utt3 detected SMART_MIRROR 0.2",
    ]
    assert (tmp_path / "events.tsv").read_text(encoding="utf-8").splitlines()[:2] == [
        "utt\tkeyword\tconfidence\tstart_s\tend_s",
        "utt1\t嗨小问\t0.596\t0.090\t0.300",
    ]
    table = read_scores(tmp_path / "score.txt")
    assert table.keys == ("utt1", "utt2", "utt3")
    assert table.best("嗨小问").tolist() == [0.596, REJECTED, 1e-9]
    assert table.best("SMART MIRROR").tolist() == [REJECTED, REJECTED, 1.0]
    assert np.sort(table.of("SMART MIRROR").confidence).tolist() == [0.2, 1.0]
    assert len(table.of("ALEXA").confidence) == 0


@pytest.mark.parametrize(
    "line", ["utt1", "utt1 maybe", "utt1 detected A", "utt1 detected A 1.5", "utt1 detected A nan"]
)
def test_bad_line_is_named(tmp_path, line):
    (tmp_path / "score.txt").write_text(f"utt0 rejected\n{line}\n")
    with pytest.raises(DataError, match=r"score\.txt:2: "):
        read_scores(tmp_path / "score.txt")


def test_empty_file(tmp_path):
    (tmp_path / "score.txt").write_text("\n")
    with pytest.raises(DataError, match="no utterance"):
        read_scores(tmp_path / "score.txt")


def test_score_info(tmp_path):
    with pytest.raises(DataError, match="score_ctc"):
        read_score_info(tmp_path)
    info = {"checkpoint": "1.pt", "decoder": "keyword", "data_list": "x", "keywords": ["嗨小问"]}
    write_json(tmp_path / "score.json", info)
    assert read_score_info(tmp_path) == info


@pytest.mark.parametrize(
    "change", [{"data_list": None}, {"keywords": "A"}, {"keywords": [3]}, {"keywords": ["../../A"]}]
)
def test_score_info_that_was_tampered_with_is_refused(tmp_path, change):
    """A keyword names files; one with a slash would be written outside the result folder."""
    info = {"checkpoint": "1.pt", "decoder": "keyword", "data_list": "x", "keywords": ["嗨小问"]}
    write_json(tmp_path / "score.json", info | change)
    with pytest.raises(DataError, match=r"score\.json.*score the set again"):
        read_score_info(tmp_path)


@pytest.mark.parametrize("again", ["a detected X 0.5", "a rejected"])
def test_lines_of_a_file_that_was_written_twice_are_refused(tmp_path, again):
    (tmp_path / "score.txt").write_text(f"a detected X 0.5\nb rejected\n{again}\n")
    with pytest.raises(DataError, match=r"score\.txt:3: utterance a has lines further up"):
        read_scores(tmp_path / "score.txt")
    (tmp_path / "score.txt").write_text("a rejected\na rejected\n")
    with pytest.raises(DataError, match="rejected above"):
        read_scores(tmp_path / "score.txt")


def test_times_that_are_no_text_are_named(tmp_path):
    (tmp_path / "events.tsv").write_bytes(b"\x80\x05")
    with pytest.raises(DataError, match="events.tsv: not text in UTF-8"):
        read_timed_events(tmp_path)
