"""Utterances that are left out: long recordings, and what thins out the training set alone."""

import logging

import numpy as np
import pytest
from small_lists import make

from wekws.dataset.cmvn_stats import compute_cmvn
from wekws.dataset.dataset_conf import DatasetConfig, FilterConfig
from wekws.dataset.feature_view import AugmentConfig
from wekws.dataset.filters import keep_share, without_long
from wekws.dataset.manifest import Utterance, read_data_list, write_data_list
from wekws.errors import DataError

NUM = 300
KEYS = [f"utt{i:03d}" for i in range(NUM)]
IS_KEYWORD = [i % 3 == 0 for i in range(NUM)]


def kept(share, keys=KEYS, is_keyword=IS_KEYWORD, reasons=None):
    reasons = keep_share(
        reasons or [None] * len(keys), share=share, keys=keys, is_keyword=is_keyword
    )
    return {key for key, reason in zip(keys, reasons, strict=True) if reason is None}


def test_a_share_keeps_the_balance_and_is_part_of_a_larger_one():
    tenth, third = kept(0.1), kept(0.33)
    # 100 with a keyword, 200 without.
    number = {key: IS_KEYWORD[int(key[3:])] for key in tenth}
    assert (sum(number.values()), len(number)) == (10, 30)
    assert (sum(IS_KEYWORD[int(key[3:])] for key in third), len(third)) == (33, 99)
    assert tenth < third and kept(1.0) == set(KEYS)


def test_the_same_utterances_in_any_order_and_among_others():
    assert kept(0.1, KEYS[::-1], IS_KEYWORD[::-1]) == kept(0.1)
    # Hashed by key, not by place: those of a list of twice the size were mostly there before.
    more = [f"new{i:03d}" for i in range(NUM)]
    both = kept(0.1, KEYS + more, IS_KEYWORD * 2)
    assert len(both) == 60 and len(both & set(more)) not in (0, 60)
    assert len(both & kept(0.1)) >= 15


def test_what_is_left_out_already_keeps_its_reason_and_is_not_counted():
    reasons = ["too long"] * 150 + [None] * 150
    thinned = keep_share(reasons, share=0.1, keys=KEYS, is_keyword=IS_KEYWORD)
    assert thinned[:150] == reasons[:150]
    assert sum(reason is None for reason in thinned) == 5 + 10
    assert set(thinned[150:]) == {None, "not in the share of 10 %"}


def test_one_is_kept_of_each_kind_however_small_the_share():
    assert len(kept(0.001)) == 2


@pytest.mark.parametrize(
    ("conf", "num", "logged"),
    [
        # Keywords in utterances 0, 3, 5, 8, 10: 3 of 5 and 4 of 7.
        ({"data_share": 0.5}, 7, "5 left out: not in the share of 50 %"),
        # 你好嗨小问 is four labels, twice; 嗨小问 three.
        ({"max_label_length": 3}, 10, "2 left out: more than 3 labels to train on"),
        ({"max_label_length": 4}, 12, ""),
    ],
)
def test_training_is_thinned_and_the_log_gives_the_reasons(data_list, caplog, conf, num, logged):
    config = DatasetConfig(filter_conf=FilterConfig(**conf))
    with caplog.at_level(logging.INFO):
        training = make(data_list, config)
    assert len(training) == num and logged in caplog.text
    assert make(data_list, config).keys == training.keys
    assert len(training.is_keyword) == num
    assert len(make(data_list, config, is_training=False)) == 12


def test_cap_and_share_together(data_list):
    conf = FilterConfig(max_label_length=3, data_share=0.5)
    training = make(data_list, DatasetConfig(filter_conf=conf))
    # Without the two of four labels: 3 with a keyword, 7 without; half of each, rounded up.
    assert (int(training.is_keyword.sum()), len(training)) == (2, 6)
    assert max(map(len, training.labels)) == 3


def with_a_long_one(data_list, duration_s):
    """Put a recording in the second line whose audio would be found missing if it were read."""
    utterances = read_data_list(data_list)
    long = Utterance(key="hours", wav="/nowhere/hours.wav", txt="", duration=duration_s)
    write_data_list(data_list, [utterances[0], long, *utterances[1:]])
    return utterances


@pytest.mark.parametrize("is_training", [True, False])
def test_long_recordings_are_left_out_before_extraction(data_list, caplog, is_training):
    before = make(data_list, is_training=is_training).batch([0, 1, 11])
    utterances = with_a_long_one(data_list, 4 * 3600.0)
    with caplog.at_level(logging.INFO):
        data = make(data_list, is_training=is_training)
    assert (
        "1 left out before extraction: longer than 120 s, so more than 2048 frames" in caplog.text
    )
    assert data.keys == [utterance.key for utterance in utterances] and data.num_listed == 13
    assert len(data.caches[0].num_frames) == 12
    found = data.batch([0, 1, 11])
    assert found.keys == before.keys and found.labels.equal(before.labels)
    if not is_training:  # no dither
        assert found.feats.equal(before.feats)


@pytest.mark.parametrize("cache", ["float32", "none"])
def test_statistics_are_without_long_recordings(data_list, tmp_path, cache):
    config = DatasetConfig(cache=cache)
    expected = compute_cmvn(data_list, config, cache_dir=tmp_path / "one")
    with_a_long_one(data_list, 4 * 3600.0)
    stats = compute_cmvn(data_list, config, cache_dir=tmp_path / "two")
    assert np.array_equal(stats.mean_stat, expected.mean_stat)


def test_the_filter_and_the_augmentation_decide_what_is_long(data_list, caplog):
    with_a_long_one(data_list, 300.0)
    utterances = read_data_list(data_list)

    def num_kept(**conf):
        return len(without_long(data_list, utterances, DatasetConfig(**conf)))

    assert num_kept() == 12
    assert num_kept(filter_conf=FilterConfig(max_length=30000)) == 13  # 300.015 s
    assert num_kept(filter_conf=FilterConfig(max_length=29990)) == 12
    # 2.5 times as fast, 300 s are 12,000 frames.
    fast = AugmentConfig(speeds=(1.0, 2.0), tempos=(1.25,))
    assert num_kept(filter_conf=FilterConfig(max_length=12000), augment_conf=fast) == 13
    with pytest.raises(DataError, match="no utterance is left: 1 longer than 120 s"):
        without_long(data_list, [u for u in utterances if u.key == "hours"], DatasetConfig())
