import json

import numpy as np
import pytest

from wekws.bin import choose_teachers
from wekws.errors import ConfigError
from wekws.score.det import Budget
from wekws.score.teacher_choice import rank_teachers

BUDGET = Budget(1.0)
NUM_POSITIVES = 200


def make_teacher(folder, misses, *, utterances=NUM_POSITIVES):
    """A teacher whose dev scores miss the first positives; 2 h of negatives without an event."""
    result = folder / "dev_avg_2"
    result.mkdir(parents=True)
    rows = [
        {"key": f"p{n:03d}", "txt": "你好", "duration": 1.0, "wav": "x"} for n in range(utterances)
    ]
    rows += [{"key": f"q{n}", "txt": "<filler>", "duration": 720.0, "wav": "x"} for n in range(10)]
    data_list = folder.parent / f"data_{utterances}.list"
    data_list.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    lines = [
        f"{row['key']} rejected" if index < misses or row["txt"] == "<filler>"
        else f"{row['key']} detected 你好 0.9"
        for index, row in enumerate(rows)
    ]  # fmt: skip
    (result / "score.txt").write_text("\n".join(lines) + "\n")
    info = {"checkpoint": "x", "decoder": "keyword", "keywords": ["你好"]}
    (result / "score.json").write_text(json.dumps(info | {"data_list": str(data_list)}))
    return folder / "avg_2.pt"


def test_teachers_that_dev_cannot_tell_from_the_best_are_kept_the_best_first(tmp_path):
    checkpoints = [
        make_teacher(tmp_path / "teacher", 12),
        make_teacher(tmp_path / "teacher_2", 10),
        make_teacher(tmp_path / "teacher_3", 60),
    ]
    standings = rank_teachers(checkpoints, BUDGET)
    assert [standing.checkpoint.parent.name for standing in standings] == [
        "teacher_2", "teacher", "teacher_3",
    ]  # fmt: skip
    assert [round(standing.frr.value, 3) for standing in standings] == [0.05, 0.06, 0.3]
    # 2 of 200 more misses may be chance (about 1.4 of them are one standard deviation, and these
    # are on the same utterances); 50 more are not.
    assert [standing.is_kept for standing in standings] == [True, True, False]
    assert np.isclose(standings[0].above_best.value, 0.0)
    assert standings[2].above_best.low > 0.1


def test_the_command_writes_the_kept_ones_and_says_why(tmp_path, caplog):
    checkpoints = [make_teacher(tmp_path / "teacher", 80), make_teacher(tmp_path / "teacher_2", 10)]
    out = tmp_path / "teachers.txt"
    with caplog.at_level("INFO"):
        assert choose_teachers.main(
            ["--checkpoints", *map(str, checkpoints), "--budget", "1", "--out", str(out)]
        ) == 0  # fmt: skip
    assert out.read_text().splitlines() == [str(checkpoints[1])]
    assert "left out: worse than the best by more than chance" in caplog.text


def test_no_teachers_are_an_error():
    with pytest.raises(ConfigError, match="no teachers"):
        rank_teachers([], BUDGET)
