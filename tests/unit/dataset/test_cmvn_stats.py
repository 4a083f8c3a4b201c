import json
from types import SimpleNamespace

import numpy as np
import pytest

from wekws.bin import compute_cmvn as command
from wekws.dataset import cmvn_stats
from wekws.dataset.cmvn_stats import cache_stats, compute_cmvn, write_cmvn
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.feature_view import AugmentConfig
from wekws.dataset.manifest import read_data_list
from wekws.errors import DataError


def test_sums_by_hand(tmp_path):
    # Two caches of frames (1, 2), (3, 4) and (5, 6): sums 9, 12; squares 1+9+25, 4+16+36.
    caches = [
        SimpleNamespace(frames=np.array([[1, 2], [3, 4]], np.float32)),
        SimpleNamespace(frames=np.array([[5, 6]], np.float32)),
    ]
    stats = cache_stats(caches)
    write_cmvn(tmp_path / "global_cmvn", stats)
    assert json.loads((tmp_path / "global_cmvn").read_text()) == {
        "mean_stat": [9.0, 12.0],
        "var_stat": [35.0, 56.0],
        "frame_num": 3,
    }
    assert stats.mean.tolist() == [3, 4]
    np.testing.assert_allclose(stats.std, [np.sqrt(8 / 3)] * 2)


def test_chunks_and_threads_change_nothing(monkeypatch):
    frames = np.random.default_rng(0).normal(10, 3, (1000, 80)).astype(np.float32)
    monkeypatch.setattr(cmvn_stats, "_CHUNK_FRAMES", 64)
    one, two = (cache_stats([SimpleNamespace(frames=frames)], num_threads=n) for n in (1, 2))
    assert np.array_equal(one.mean_stat, two.mean_stat) and one.frame_num == 1000
    np.testing.assert_allclose(one.mean, frames.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(one.std, frames.astype(np.float64).std(axis=0), rtol=1e-9)


def test_no_frames_is_an_error():
    with pytest.raises(DataError, match="no frames"):
        cache_stats([SimpleNamespace(frames=np.empty((0, 80), np.float32))])


def test_features_of_an_old_cache_that_are_not_finite_are_refused(tone_corpus, tmp_path):
    compute_cmvn(tone_corpus.train_list, DatasetConfig(), cache_dir=tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("feats.npy")
    offsets = np.load(path.with_name("offsets.npy"))
    feats = np.load(path, mmap_mode="r+")
    feats[offsets[3], 7] = np.inf  # the first frame of the fourth utterance
    feats.flush()
    key = read_data_list(tone_corpus.train_list)[3].key
    with pytest.raises(DataError, match=f"features of utterance {key} are not finite"):
        compute_cmvn(tone_corpus.train_list, DatasetConfig(), cache_dir=tmp_path / "cache")


def test_statistics_are_those_of_all_training_copies(tone_corpus, tmp_path):
    config = DatasetConfig(augment_conf=AugmentConfig(copies=2, gain_db=(-20.0, 0.0)))
    stats = compute_cmvn(tone_corpus.train_list, config, cache_dir=tmp_path / "cache")
    plain = compute_cmvn(tone_corpus.train_list, DatasetConfig(), cache_dir=tmp_path / "cache")
    assert stats.frame_num == 2 * plain.frame_num
    assert (stats.mean < plain.mean).mean() > 0.9  # The audio is quieter.
    assert len(stats.mean) == 80


def test_command(tone_corpus, tmp_path, capsys):
    arguments = [
        *("--config", str(tone_corpus.config_path)),
        *("--data_list", str(tone_corpus.train_list)),
        *("--cache_dir", str(tmp_path / "cache")),
        *("--cmvn_file", str(tmp_path / "global_cmvn")),
        *("--num_workers", "0"),
    ]
    assert command.main(arguments) == 0
    written = json.loads((tmp_path / "global_cmvn").read_text())
    assert f"{written['frame_num']} frames" in capsys.readouterr().out
    expected = compute_cmvn(tone_corpus.train_list, DatasetConfig(), cache_dir=tmp_path / "cache")
    assert written["mean_stat"] == expected.mean_stat.tolist()
