"""Shared fixtures: a corpus of tones, small enough to train on in a second."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tones import SMALL_CONFIG, write_tones


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@dataclass(frozen=True)
class ToneCorpus:
    """Lists, dictionary, keywords and a small model's configuration on disk."""

    root: Path
    train_list: Path
    dev_list: Path
    dict_path: Path
    keywords_path: Path
    config_path: Path
    cmvn_path: Path


def write_list(root: Path, name: str, num: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    texts = ["嗨小问", "小问", "问小嗨", "嗨", "问嗨小问"]
    lines = []
    for i in range(num):
        text = texts[i % len(texts)]
        path = root / f"{name}{i}.wav"
        duration = write_tones(path, text, rng)
        row = {"key": f"{name}{i}", "wav": str(path), "txt": text, "duration": duration}
        lines.append(json.dumps(row, ensure_ascii=False))
    folder = root / name
    folder.mkdir()
    (folder / "data.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "data.list"


@pytest.fixture(scope="session")
def tone_corpus(tmp_path_factory) -> ToneCorpus:
    root = tmp_path_factory.mktemp("tones")
    dict_path, keywords_path = root / "dict.txt", root / "keywords.txt"
    tokens = ["<blk>", "<filler>", "嗨", "小", "问"]
    rows = [f"{token} {i}\n" for i, token in enumerate(tokens)]
    dict_path.write_text("".join(rows), encoding="utf-8")
    keywords_path.write_text("嗨小问\n", encoding="utf-8")
    config_path = root / "small.yaml"
    config_path.write_text(yaml.safe_dump(SMALL_CONFIG), encoding="utf-8")
    cmvn_path = root / "global_cmvn"
    # Log-mel energies of the tones: mean 8, deviation 4 in every bin.
    stats = {"mean_stat": [800.0] * 80, "var_stat": [8000.0] * 80, "frame_num": 100}
    cmvn_path.write_text(json.dumps(stats))
    return ToneCorpus(
        root=root,
        train_list=write_list(root, "train", 20, seed=1),
        dev_list=write_list(root, "dev", 8, seed=2),
        dict_path=dict_path,
        keywords_path=keywords_path,
        config_path=config_path,
        cmvn_path=cmvn_path,
    )


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
