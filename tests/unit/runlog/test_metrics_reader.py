import pytest

from wekws.errors import DataError
from wekws.runlog.metrics_reader import read_cv_rows, read_metrics


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x05pickle\n", r"metrics\.jsonl: not text"),
        (b'{"kind": "cv", "epoch": "one"}\n', r"metrics\.jsonl:1: found .*expected a JSON object"),
        (b'[1]\n{"kind": "cv"}\n', r"metrics\.jsonl:1: found \[1\]"),
        (b'{"kind": "cv"}\n', "no cv row yet"),
    ],
)
def test_what_is_no_log_is_named(tmp_path, content, message):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cv_rows(tmp_path)


def test_a_row_that_is_cut_off_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "cv", "epoch": 0}\n{"kind": "cv", "ep')
    assert read_metrics(tmp_path) == [{"kind": "cv", "epoch": 0}]
