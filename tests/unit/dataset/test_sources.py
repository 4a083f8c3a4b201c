"""Sources of features: caches in two formats, or the audio itself in every epoch."""

import logging

import numpy as np
import pytest
import torch
from small_lists import LABELS

from wekws.dataset.augment import spec_augment
from wekws.dataset.cmvn_stats import compute_cmvn
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.feature_view import AugmentConfig, SpecAugConfig
from wekws.dataset.loader import batches
from wekws.dataset.opening import open_dataset
from wekws.errors import DataError


def make(data_list, is_training=True, **settings):
    return open_dataset(
        data_list,
        DatasetConfig(**settings),
        LABELS,
        cache_dir=data_list.parent / "cache",
        is_training=is_training,
    )


def cache_bytes(data_list):
    return sorted(p.stat().st_size for p in data_list.parent.glob("cache/*/feats.npy"))


def test_half_precision_halves_the_cache_and_rounds_the_features(data_list):
    exact, half = make(data_list), make(data_list, cache="float16")
    small, large = cache_bytes(data_list)  # side by side
    assert small == pytest.approx(large / 2, rel=0.01)
    one, other = exact.batch(range(12)), half.batch(range(12))
    assert other.feats.dtype == torch.float32 and torch.equal(one.feat_lengths, other.feat_lengths)
    assert 0 < (one.feats - other.feats).abs().max() < 0.01  # of log energies up to 20
    assert exact.audio_fingerprint == half.audio_fingerprint


def test_without_a_cache_the_features_are_those_of_the_cache(data_list):
    cached = make(data_list, is_training=False).batch([3, 0, 7])
    size = cache_bytes(data_list)
    direct = make(data_list, is_training=False, cache="none")
    assert torch.equal(direct.batch([3, 0, 7]).feats, cached.feats)
    assert torch.equal(direct.batch([3, 0, 7], epoch=1).feats, cached.feats)
    assert cache_bytes(data_list) == size and direct.frames_in(0)[3] == cached.feat_lengths[0]


def test_without_a_cache_dither_and_augmentation_are_new_in_each_epoch(data_list, caplog):
    plain = make(data_list, cache="none")
    zero, one = (plain.batch([5, 2], epoch).feats for epoch in (0, 1))
    assert zero.shape == one.shape and not torch.equal(zero, one)
    assert torch.equal(zero, plain.batch([5, 2], 0).feats)
    copies = AugmentConfig(copies=2, speeds=(0.8, 1.25))
    faster = make(data_list, cache="none", augment_conf=copies)
    assert "copies has no effect" in caplog.text
    lengths = {tuple(faster.batch([5, 2], epoch).feat_lengths.tolist()) for epoch in range(6)}
    assert len(lengths) > 1
    assert not list(data_list.parent.glob("cache/*"))


def test_workers_give_the_same_batches(data_list):
    config = DatasetConfig(cache="none", augment_conf=AugmentConfig(speeds=(0.9, 1.1)))
    options = {"cache_dir": data_list.parent / "cache", "is_training": True}
    alone = open_dataset(data_list, config, LABELS, **options)
    pooled = open_dataset(data_list, config, LABELS, num_workers=2, **options)
    try:
        for one, other in zip(
            *(batches(d, batch_size=5, epoch=1, shuffle=True) for d in (alone, pooled)), strict=True
        ):
            assert one.keys == other.keys and torch.equal(one.feats, other.feats)
    finally:
        pooled.close()


def test_a_file_that_is_found_unreadable_is_left_out_of_its_batches(data_list, caplog):
    (data_list.parent.parent / "utt03.wav").write_bytes(b"RIFF nonsense")
    dataset = make(data_list, cache="none", max_bad_fraction=0.1, join_prob=0.5)
    assert len(dataset) == 12  # no file has been opened
    with caplog.at_level(logging.WARNING):
        for epoch in range(4):
            batch = dataset.batch(range(12), epoch)
            assert batch.keys == [k for k in dataset.keys if k != "utt03"]
            assert batch.places.tolist() == [0, 1, 2, *range(4, 12)] and batch.num_global == 12
            assert (batch.feat_lengths > 0).all() and len(batch.feats) == 11
    assert len([r for r in caplog.records if "utt03 is left out" in r.getMessage()]) == 1
    with pytest.raises(DataError, match="no utterance of a batch can be read: utt03"):
        make(data_list, cache="none", max_bad_fraction=0.1).batch([3])
    (data_list.parent.parent / "utt04.wav").unlink()
    with pytest.raises(DataError, match="2 of 12 utterances cannot be used.*first utt03"):
        dataset.batch([4])


def test_cmvn_without_a_cache(data_list):
    cached, direct = (
        compute_cmvn(data_list, DatasetConfig(cache=c), cache_dir=data_list.parent / "cache")
        for c in ("float32", "none")
    )
    assert direct.frame_num == cached.frame_num
    # Other dither, the same mean and deviation.
    np.testing.assert_allclose(direct.mean, cached.mean, rtol=1e-3)
    np.testing.assert_allclose(direct.std, cached.std, rtol=1e-2)
    (data_list.parent.parent / "utt03.wav").unlink()
    with pytest.raises(DataError, match="1 of 12.*utt03"):
        compute_cmvn(data_list, DatasetConfig(cache="none"), cache_dir=data_list.parent / "cache")


def test_masks_depend_on_the_place_in_the_step_not_on_the_process():
    feats = torch.randn(7, 50, 20)
    lengths = torch.tensor([50, 10, 33, 1, 50, 7, 20])

    def masked(rows, **options):
        return spec_augment(
            feats[rows],
            lengths[rows],
            config=SpecAugConfig(num_t_mask=2, num_f_mask=1),
            generator=torch.Generator().manual_seed(1),
            fill=torch.zeros(20),
            **options,
        )

    whole = masked(torch.arange(7))
    assert not torch.equal(whole, feats)
    for rank in range(3):
        rows = torch.arange(rank, 7, 3)
        assert torch.equal(masked(rows, places=rows, num_places=7), whole[rows])
