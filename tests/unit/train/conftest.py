"""A teacher that has learnt the tones."""

import pytest

from wekws.bin import train


@pytest.fixture(scope="session")
def teacher(tone_corpus, tmp_path_factory):
    root = tmp_path_factory.mktemp("teacher")
    flags = {
        "config": tone_corpus.config_path,
        "train_data": tone_corpus.train_list,
        "cv_data": tone_corpus.dev_list,
        "dict": tone_corpus.dict_path,
        "keywords_file": tone_corpus.keywords_path,
        "cmvn_file": tone_corpus.cmvn_path,
        "cache_dir": root / "cache",
        "model_dir": root / "teacher",
        "device": "cpu",
        "num_threads": 1,
        "num_workers": 1,
        "override": "training_config.max_epoch=12",
    }
    assert train.main([str(x) for k, v in flags.items() for x in (f"--{k}", v)]) == 0
    return root / "teacher"
