"""Time of features and of scoring, measured on noise or on some files."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wekws.sweep import data_time
from wekws.sweep.data_time import epoch_feature_seconds, feature_seconds, scoring_seconds
from wekws.train.train_config import load_train_config

ROOT = Path(__file__).parents[3]
CONFIG = load_train_config(
    ROOT / "conf/fsmn_ctc_student_s5.yaml", overlays=[ROOT / "conf/overlays/small_corpus.yaml"]
)


@pytest.fixture
def second(monkeypatch):
    """Make every measured piece of work take one second."""
    ticks = itertools.count()
    monkeypatch.setattr(data_time.time, "process_time", lambda: float(next(ticks)))


def test_all_copies_of_a_second_of_audio(second):
    noise_s = 32.0
    found = feature_seconds(CONFIG.dataset_conf, {}, is_training=True)
    assert found == pytest.approx(6 / noise_s)
    assert feature_seconds(CONFIG.dataset_conf, {}, is_training=False) == pytest.approx(1 / noise_s)
    without = dataclasses.replace(CONFIG.dataset_conf, cache="none")
    assert feature_seconds(without, {}, is_training=True) == 0.0


def test_features_of_every_epoch(second):
    cached = CONFIG.dataset_conf
    assert epoch_feature_seconds(cached, {}, is_training=True) == 0.0
    without = dataclasses.replace(cached, cache="none")
    for is_training in (True, False):
        found = epoch_feature_seconds(without, {}, is_training=is_training)
        assert found == pytest.approx(1 / 32.0)
    # Augmented anew in every epoch: the cache serves dev alone.
    anew = dataclasses.replace(
        cached, augment_conf=dataclasses.replace(cached.augment_conf, copies=0)
    )
    assert epoch_feature_seconds(anew, {}, is_training=True) == pytest.approx(1 / 32.0)
    assert epoch_feature_seconds(anew, {}, is_training=False) == 0.0


def test_files_are_measured_unless_training_would_cut_them(second, tmp_path):
    files = {}
    for name, seconds in (("a", 2.0), ("b", 3.0), ("long", 21.0)):
        files[str(tmp_path / f"{name}.wav")] = seconds
        samples = np.random.default_rng(0).standard_normal(round(16000 * seconds)) / 10
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="PCM_16")
    found = feature_seconds(CONFIG.dataset_conf, files, is_training=False)
    assert found == pytest.approx(1 / 5.0)


def test_scores_of_a_second_of_audio(second):
    sizes = CONFIG.with_output_dim(8).model
    threads = torch.get_num_threads()
    found = scoring_seconds(sizes, CONFIG.dataset_conf, 2, torch.device("cpu"))
    assert found == pytest.approx(1 / 32.0)
    assert torch.get_num_threads() == threads
