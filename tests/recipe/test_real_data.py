"""Real recordings, where there are some: WEKWS_REAL_DATA names a Kaldi folder of them."""

import os
from pathlib import Path

import pytest
from recipe_copy import ROOT

from wekws.bin import make_dict, prepare_kaldi, validate_data
from wekws.files import read_json

KEYWORDS = "COMPUTER,JARVIS,SMART MIRROR,SNOWBOY,VIEW GLASS,ALEXA"


@pytest.fixture
def real_dir() -> Path:
    folder = os.environ.get("WEKWS_REAL_DATA")
    if not folder:
        pytest.skip("WEKWS_REAL_DATA is not set: it names a folder of real recordings")
    return Path(folder)


def run(command, **flags):
    return command.main([word for key, value in flags.items() for word in (f"--{key}", str(value))])


@pytest.mark.real
def test_real_recordings_are_valid(real_dir, tmp_path):
    keywords = os.environ.get("WEKWS_REAL_KEYWORDS", KEYWORDS)
    dict_path, keywords_path = tmp_path / "dict.txt", tmp_path / "keywords.txt"
    assert run(prepare_kaldi, data_dir=real_dir, out_dir=tmp_path) == 0
    made = {"dict": dict_path, "keywords_file": keywords_path}
    assert run(make_dict, text=tmp_path / "train" / "text", keywords=keywords, **made) == 0
    config = ROOT / "conf" / "fsmn_ctc_teacher.yaml"
    status = run(
        validate_data, data_dir=tmp_path, config=config, out_dir=tmp_path / "report", **made
    )
    report = read_json(tmp_path / "report" / "validation.json")
    assert status == 0, report["problems"]
    for split in ("train", "dev", "test"):
        lists = (real_dir / split).rglob("wav.scp")
        listed = sum(len(path.read_text("utf-8").splitlines()) for path in lists)
        assert report["splits"][split]["num_utterances"] == listed > 0
        assert report["splits"][split]["hours"] > 0
