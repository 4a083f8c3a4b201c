"""Data lists and Kaldi tables."""

import os

import pytest

from wekws.dataset.manifest import (
    Utterance,
    kaldi_rows,
    read_data_list,
    read_kaldi_table,
    write_data_list,
    write_kaldi_table,
)
from wekws.errors import DataError


def utterance(key, **changes):
    fields = {"wav": f"/w/{key}.wav", "txt": "嗨 小问", "duration": 1.25} | changes
    return Utterance(key=key, **fields)


def test_data_list_round_trip_sorted_by_code_point(tmp_path):
    path = tmp_path / "data.list"
    utterances = [utterance("b"), utterance("a", tok=("嗨", "小")), utterance("B", txt=(1, 2))]
    write_data_list(path, utterances)
    assert [line[9] for line in path.read_text(encoding="utf-8").splitlines()] == ["B", "a", "b"]
    assert "嗨 小问" in path.read_text(encoding="utf-8")
    assert read_data_list(path) == [utterances[2], utterances[1], utterances[0]]


def test_wekws_lists_of_both_ages(tmp_path):
    path = tmp_path / "data.list"
    path.write_text(
        '{"key": "a", "txt": -1, "duration": 2, "wav": "a.wav"}\n'
        '{"key": "b", "tok": ["嗨", "小"], "txt": [2, 3], "duration": 1.5, "wav": "b.wav"}\n',
        encoding="utf-8",
    )
    old, new = read_data_list(path)
    assert (old.txt, old.tok, old.duration) == ((-1,), None, 2.0)
    assert (new.txt, new.tok) == ((2, 3), ("嗨", "小"))


def test_every_bad_line_is_named(tmp_path):
    path = tmp_path / "data.list"
    good = '{"key": "a", "txt": "A", "duration": 1, "wav": "a.wav"}'
    bad = [
        good.replace("1", "-0.2"),
        good.replace("1", "NaN"),
        good.replace("1", "true"),
        good.replace('"A"', "[1, null]"),
        good.replace('"a.wav"', '""'),
        '{"key": "c"}',
        "[]",
        "key: a",
    ]
    path.write_text("\n".join([good, *bad, "", good]))
    with pytest.raises(DataError) as caught:
        read_data_list(path)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5", "6", "7", "8", "9", "11"]
    assert lines[0] == f"{path}:2: duration -0.2 s; expected > 0"
    assert "already in line 1" in lines[-1]


def test_empty_list_and_wrong_encoding(tmp_path):
    path = tmp_path / "data.list"
    path.write_text("\n\n")
    with pytest.raises(DataError, match="no utterances"):
        read_data_list(path)
    path.write_bytes("a 嗨".encode("gb18030"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_kaldi_table(path)


def test_kaldi_table(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffa\tHEY  YOU\r\n\r\nb\r\nc  with space.wav \r\n".encode())
    assert read_kaldi_table(path) == {"a": "HEY  YOU", "b": "", "c": "with space.wav"}
    assert [row.line for row in kaldi_rows(path)] == [1, 3, 4]


def test_duplicates_name_both_lines(tmp_path):
    path = tmp_path / "text"
    path.write_text("a 1\nb 2\na 3\n")
    with pytest.raises(DataError, match=r"text:3: id 'a' is already in line 1"):
        read_kaldi_table(path)


def test_kaldi_table_is_written_sorted_and_whole(tmp_path):
    path = tmp_path / "deep" / "text"
    write_kaldi_table(path, [("b", "2"), ("a", "1"), ("B", ""), ("a", "0")])
    assert path.read_text() == "B\na 0\na 1\nb 2\n"


def test_unchanged_kaldi_table_keeps_its_time(tmp_path):
    path = tmp_path / "text"
    write_kaldi_table(path, [("a", "嗨")])
    os.utime(path, (1, 1))
    write_kaldi_table(path, [("a", "嗨")])
    assert path.stat().st_mtime == 1
    write_kaldi_table(path, [("a", "问")])
    assert path.stat().st_mtime > 1 and path.read_text("utf-8") == "a 问\n"


def test_a_list_with_the_same_content_keeps_its_time(tmp_path):
    """What was made from it, such as scores, stays newer."""
    path = tmp_path / "data.list"
    write_data_list(path, [utterance("b"), utterance("a")])
    os.utime(path, (1, 1))
    write_data_list(path, [utterance("a"), utterance("b")])
    assert path.stat().st_mtime == 1
    write_data_list(path, [utterance("a"), utterance("b", duration=2.0)])
    assert path.stat().st_mtime > 1 and os.listdir(tmp_path) == ["data.list"]


@pytest.mark.parametrize("line", ["[" * 100000, "{} {}", '{"key": "a"} x'])
def test_a_line_that_is_not_one_object_is_named(tmp_path, line):
    (tmp_path / "data.list").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"data\.list:1: not JSON"):
        read_data_list(tmp_path / "data.list")
