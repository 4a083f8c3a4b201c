"""Utterances of tones, and a model small enough to train on them in a second."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import yaml

SAMPLE_RATE_HZ = 16000
TONES_HZ = {"嗨": 500.0, "小": 1100.0, "问": 2300.0}

# Each letter is a tone, a word goes without a pause.
TONE_OF = str.maketrans({"A": "嗨", "B": "小", "C": "问", " ": None})

SMALL_CONFIG = {
    "dataset_conf": {
        "spec_aug": True,
        "spec_aug_conf": {"num_t_mask": 1, "num_f_mask": 1, "max_t": 5, "max_f": 10},
        "batch_conf": {"batch_size": 8},
    },
    "model": {
        "input_dim": 400,
        "output_dim": 5,
        "backbone": {
            "type": "fsmn",
            "input_affine_dim": 16,
            "num_layers": 2,
            "linear_dim": 24,
            "proj_dim": 12,
            "left_order": 4,
            "right_order": 1,
            "left_stride": 1,
            "right_stride": 1,
            "output_affine_dim": 16,
        },
    },
    "optim_conf": {"lr": 0.005},
    "training_config": {"max_epoch": 3, "log_interval": 2},
}


def write_tones(path: Path, text: str, rng: np.random.Generator) -> float:
    """Write one utterance in which each character is 150 ms of its own tone; return seconds."""
    times = np.arange(int(0.15 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    silence = np.zeros(int(0.1 * SAMPLE_RATE_HZ))
    tones = [0.3 * np.sin(2 * np.pi * TONES_HZ[c] * times) for c in text]
    samples = np.concatenate([silence, *tones, silence])
    samples = samples + 0.003 * rng.standard_normal(len(samples))
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return len(samples) / SAMPLE_RATE_HZ


def write_split(corpus: Path, split: str, texts: list[str], seed: int) -> None:
    """Write a split of a Kaldi folder, paths relative to the folder."""
    rng = np.random.default_rng(seed)
    (corpus / split).mkdir(parents=True)
    tables = {"wav.scp": [], "text": [], "utt2spk": []}
    for i, text in enumerate(texts):
        key = f"{split.replace('/', '_')}_{i:02d}"
        write_tones(corpus / split / f"{key}.wav", text.translate(TONE_OF), rng)
        for table, value in (("wav.scp", f"{split}/{key}.wav"), ("text", text)):
            tables[table].append(f"{key} {value}\n")
        tables["utt2spk"].append(f"{key} {split.partition('/')[0]}_{i % 2}\n")
    for table, lines in tables.items():
        (corpus / split / table).write_text("".join(lines))


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


def make_tone_corpus(root: Path) -> ToneCorpus:
    """Write train and dev lists of tones, and all that a training command wants beside them."""
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
