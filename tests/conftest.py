"""Shared fixtures: a corpus of tones, small enough to train on in a second; a quick `python`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forked_python import forked_python
from tiny_feature_teacher import write_feature_teacher
from tones import ToneCorpus, make_tone_corpus


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def python_dir(tmp_path_factory) -> Iterator[Path]:
    """Folder of a `python` that starts in no time: forked_python."""
    with forked_python(tmp_path_factory.mktemp("python")) as folder:
        yield folder


@pytest.fixture(scope="session")
def tone_corpus(tmp_path_factory) -> ToneCorpus:
    return make_tone_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def train_arguments(tone_corpus, tmp_path):
    """Flags of a training command on the tone corpus, writing below tmp_path/exp."""
    return [
        *("--config", str(tone_corpus.config_path)),
        *("--train_data", str(tone_corpus.train_list)),
        *("--cv_data", str(tone_corpus.dev_list)),
        *("--dict", str(tone_corpus.dict_path)),
        *("--keywords_file", str(tone_corpus.keywords_path)),
        *("--cmvn_file", str(tone_corpus.cmvn_path)),
        *("--cache_dir", str(tmp_path / "cache")),
        *("--num_workers", "1", "--num_threads", "1", "--device", "cpu"),
    ]


@pytest.fixture(scope="session")
def feature_teacher(tmp_path_factory) -> str:
    """The description of a small feature teacher of ONNX models."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return str(write_feature_teacher(tmp_path_factory.mktemp("feature_teacher")))
