"""Shards: written from a list, read from start to end, with the order of an epoch given by seed."""

import collections
import dataclasses
import importlib
import logging
import tarfile

import numpy as np
import pytest
import torch
from small_lists import LABELS

from wekws.bin import make_shards
from wekws.dataset.dataset_conf import BatchConfig, DatasetConfig, FbankConfig
from wekws.dataset.feature_view import AugmentConfig
from wekws.dataset.loader import batches, epoch_plan
from wekws.dataset.manifest import read_data_list, write_data_list
from wekws.dataset.opening import open_dataset
from wekws.dataset.shards import shard_of, shard_order
from wekws.errors import ConfigError, DataError

PLAIN = DatasetConfig(fbank_conf=FbankConfig(dither=0.0))


@pytest.fixture
def sharded(data_list):  # noqa: F811
    out_dir = data_list.parent / "shards"
    flags = ("--data_list", data_list, "--out_dir", out_dir, "--shard_size", 5)
    assert make_shards.main(list(map(str, flags))) == 0
    return out_dir / "data.list"


def open_it(path, config=PLAIN, **options):
    return open_dataset(
        path, config, LABELS, cache_dir=path.parent / "cache", is_training=True, **options
    )


def by_key(dataset, epoch=0, **options):
    found = {}
    for batch in batches(dataset, batch_size=4, epoch=epoch, shuffle=True, **options):
        for i, key in enumerate(batch.keys):
            assert key not in found
            found[key] = (batch.feats[i, : batch.feat_lengths[i]], batch.labels[i].tolist())
    return found


def test_shards_hold_the_files_and_the_list_names_them(sharded, data_list):  # noqa: F811
    loose, listed = read_data_list(data_list), read_data_list(sharded)
    assert [u.key for u in loose] == [u.key for u in listed]
    assert [u.txt for u in loose] == [u.txt for u in listed]
    names = sorted({shard_of(u.wav) for u in listed})
    assert len(names) == 3
    with tarfile.open(names[0]) as tar:
        files = tar.getnames()
        content = tar.extractfile("000000000.wav").read()
    assert len(files) == 10 and set(files) >= {"000000000.wav", "000000000.json"}
    first = next(u for u in listed if u.wav.endswith("#000000000"))
    with open(next(u.wav for u in loose if u.key == first.key), "rb") as stream:
        assert stream.read() == content
    with pytest.raises(DataError, match="holds shards already"):
        make_shards.write_shards(data_list, sharded.parent)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_from_shards_is_that_of_the_files(sharded, data_list, num_workers):  # noqa: F811
    loose = open_it(data_list, DatasetConfig(cache="none", fbank_conf=FbankConfig(dither=0.0)))
    dataset = open_it(sharded, num_workers=num_workers)
    try:
        expected = by_key(loose)
        for epoch in (0, 1):
            found = by_key(dataset, epoch)
            assert found.keys() == expected.keys()
            for key, (feats, _) in found.items():
                assert torch.equal(feats, expected[key][0])
        assert not (sharded.parent / "cache").exists()
    finally:
        dataset.close()


def test_leaving_an_epoch_early_and_starting_another(sharded):
    dataset = open_it(sharded)
    for _ in batches(dataset, batch_size=4, epoch=0, shuffle=True):
        break
    assert len(by_key(dataset, epoch=2)) == 12


def test_augmentation_uses_the_shard_alone(sharded):
    noisy = AugmentConfig(speeds=(0.9, 1.1), noise_prob=1.0, noise_kinds=("babble",))
    config = DatasetConfig(augment_conf=noisy)
    one, again = (by_key(open_it(sharded, config), epoch) for epoch in (0, 0))
    other = by_key(open_it(sharded, config), 1)
    assert all(torch.equal(one[key][0], again[key][0]) for key in one)
    assert {len(v[0]) for v in one.values()} != {len(v[0]) for v in other.values()}


@pytest.mark.parametrize("num_wordless", [1, 3])
def test_background_is_of_the_same_shard(sharded, num_wordless):
    """Each recording of a shard without words gets noise; those of the other shards none."""
    listed = read_data_list(sharded)
    shards = sorted({shard_of(u.wav) for u in listed})
    wordless = {u.key for u in listed if shard_of(u.wav) in shards[:num_wordless]}
    texts = {True: "<filler>", False: "嗨"}
    write_data_list(sharded, [u._replace(txt=texts[u.key in wordless]) for u in listed])

    def features(noise_prob):
        noise = AugmentConfig(noise_prob=noise_prob, noise_kinds=("background",))
        return by_key(open_it(sharded, dataclasses.replace(PLAIN, augment_conf=noise)))

    quiet, noisy = features(0.0), features(1.0)
    # Without augmentation a recording is read in pieces, which rounds otherwise.
    near = {key for key in quiet if torch.allclose(quiet[key][0], noisy[key][0], atol=1e-3)}
    assert near == quiet.keys() - wordless and len(quiet) == 12 and len(shards) == 3


def test_ranks_read_their_own_runs_of_shards(sharded):
    dataset = open_it(sharded)
    shares = [by_key(dataset, rank=rank, world_size=2) for rank in range(2)]
    assert not shares[0].keys() & shares[1].keys() and len(shares[0] | shares[1]) == 12
    with pytest.raises(ConfigError, match="expected a multiple of the 3 processes"):
        epoch_plan(dataset, batch_size=4, world_size=3)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_order_of_shards(world_size):
    shards = np.repeat(np.arange(10), 7)
    options = {"seed": 1, "world_size": world_size, "buffer_size": 9}
    repeated = np.array([3, 3, 20])
    order = shard_order(shards, epoch=0, repeated=repeated, **options)
    again = shard_order(shards, epoch=0, repeated=repeated, **options)
    other = shard_order(shards, epoch=1, repeated=repeated, **options)
    assert np.array_equal(order, again) and not np.array_equal(order, other)
    counts = collections.Counter(order.tolist())
    assert counts == collections.Counter([*range(70), 3, 3, 20])
    readers = [set(shards[order[rank::world_size]].tolist()) for rank in range(world_size)]
    assert sum(map(len, readers)) <= 10 + world_size - 1
    # An utterance comes at most a buffer later than its shard, and hardly earlier.
    alone = shard_order(
        shards, epoch=0, seed=1, world_size=1, buffer_size=1, repeated=np.zeros(0, np.int64)
    )
    assert len(np.flatnonzero(np.diff(shards[alone]))) == 9  # shards one after another


def test_a_cut_shard_costs_the_utterances_behind_the_cut(sharded, caplog):
    path = sorted({shard_of(u.wav) for u in read_data_list(sharded)})[1]
    with open(path, "rb") as stream:
        content = stream.read()
    with open(path, "wb") as stream:
        stream.write(content[: len(content) // 2])
    config = DatasetConfig(max_bad_fraction=0.5)
    with caplog.at_level(logging.WARNING):
        found = by_key(open_it(sharded, config))
    assert 7 < len(found) < 12 and "not in its shard; write the shards again" in caplog.text
    with pytest.raises(DataError, match="cannot be used"):
        by_key(open_it(sharded))


def test_what_needs_files_of_its_own_is_refused(sharded):
    with pytest.raises(ConfigError, match=r"join_prob, batch_conf.batching: bucket needs audio"):
        open_it(sharded, DatasetConfig(join_prob=0.5, batch_conf=BatchConfig(batching="bucket")))
    with pytest.raises(ConfigError, match="dev and test sets"):
        open_dataset(sharded, PLAIN, LABELS, cache_dir=sharded.parent, is_training=False)
    next(sharded.parent.glob("000001.tar")).unlink()
    with pytest.raises(DataError, match="no such shard"):
        open_it(sharded)


def test_without_the_package_it_is_named(data_list, tmp_path, monkeypatch):  # noqa: F811
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install -e .\[shards\]"):
        make_shards.write_shards(data_list, tmp_path / "out")
