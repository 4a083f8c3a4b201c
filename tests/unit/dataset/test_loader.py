import gc
import logging
import threading

import pytest
import torch
from small_lists import make

from wekws.dataset.dataset_conf import DatasetConfig, FilterConfig
from wekws.dataset.feature_view import AugmentConfig
from wekws.dataset.loader import _prefetch, batches, epoch_plan
from wekws.dataset.manifest import Utterance, read_data_list, write_data_list
from wekws.errors import DataError


def test_batch_by_hand(data_list):
    dataset = make(data_list, is_training=False)
    batch = dataset.batch([4, 0, 2, 3])
    assert batch.keys == ["utt04", "utt00", "utt02", "utt03"]
    # 0.7, 0.3, 0.5 and 0.6 s: 1 + (ms - 25) // 10 windows.
    assert batch.feat_lengths.tolist() == [68, 28, 48, 58]
    assert batch.feats.shape == (4, 68, 80) and batch.feats.dtype == torch.float32
    assert (batch.feats[1, 28:] == 0).all() and (batch.feats[1, :28] != 0).all()
    # 问问, 嗨小问, nothing, then 你好 as one filler before 嗨小问.
    assert batch.labels.tolist() == [[4, 4, 0, 0], [2, 3, 4, 0], [0, 0, 0, 0], [1, 2, 3, 4]]
    assert batch.label_lengths.tolist() == [2, 3, 0, 4]
    assert batch.is_keyword.tolist() == [False, True, False, True]
    assert batch.num_global == 4
    assert batch.labels.dtype == batch.feat_lengths.dtype == torch.int64


def test_batch_without_labels_has_a_column_of_padding(data_list):
    batch = make(data_list, is_training=False).batch([2, 7])
    assert batch.labels.tolist() == [[0], [0]] and batch.label_lengths.tolist() == [0, 0]


def test_batch_moves_as_a_whole(data_list):
    batch = make(data_list, is_training=False).batch([0, 1]).to("meta")
    assert {batch.feats.device.type, batch.labels.device.type} == {"meta"}
    assert batch.keys == ["utt00", "utt01"]


def test_training_alone_has_dither(data_list):
    config = DatasetConfig()
    training, evaluation = make(data_list, config), make(data_list, config, is_training=False)
    assert training.caches[0].directory != evaluation.caches[0].directory
    assert not torch.equal(training.batch([0]).feats, evaluation.batch([0]).feats)


def test_labels_do_not_touch_the_cache(data_list):
    first = make(data_list).caches[0].directory.stat().st_ino
    write_data_list(data_list, [
        Utterance(key=f"utt{i:02d}", wav=str(data_list.parent.parent / f"utt{i:02d}.wav"),
                  txt="小", duration=1.0) for i in range(12)
    ])  # fmt: skip
    dataset = make(data_list)
    assert dataset.caches[0].directory.stat().st_ino == first
    assert dataset.labels == [[3]] * 12


def test_integer_labels_know_their_keyword(tmp_path, data_list):
    wav = str(tmp_path / "utt05.wav")
    texts = {"a": (1, 2, 3, 4), "b": (2, 4, 3), "c": (2, 3), "d": (2, 3, 4)}
    listed = [Utterance(key=key, wav=wav, txt=txt, duration=0.8) for key, txt in texts.items()]
    write_data_list(data_list, listed)
    batch = make(data_list, is_training=False).batch([0, 1, 2, 3])
    assert batch.is_keyword.tolist() == [True, False, False, True]
    assert batch.labels[1].tolist() == [2, 4, 3, 0]


@pytest.mark.parametrize(
    ("conf", "left"),
    [
        ({"max_length": 60}, ["utt00", "utt01", "utt02", "utt03"]),
        ({"min_length": 130}, ["utt11"]),
        ({"token_max_length": 1}, ["utt02", "utt07"]),
        ({"token_min_length": 4}, ["utt03", "utt08"]),
        ({"max_output_input_ratio": 0.0}, ["utt02", "utt07"]),
        ({"min_output_input_ratio": 0.08}, ["utt00"]),
    ],
)
def test_filters(data_list, conf, left, caplog):
    config = DatasetConfig(filter_conf=FilterConfig(**conf))
    with caplog.at_level(logging.INFO):
        assert make(data_list, config, is_training=False).keys == left
    assert f"{12 - len(left)} left out" in caplog.text
    assert len(make(data_list, config, is_training=False, use_filters=False)) == 12


def test_background_without_recordings_without_words_is_said(data_list, caplog):
    noise = AugmentConfig(noise_prob=0.5, noise_kinds=("white", "background"))
    make(data_list, DatasetConfig(augment_conf=noise))  # two transcripts are empty
    make(data_list, DatasetConfig(augment_conf=AugmentConfig(noise_prob=0.5)))
    assert "recordings without words" not in caplog.text
    listed = [u._replace(txt=u.txt or "嗨") for u in read_data_list(data_list)]
    write_data_list(data_list, listed)
    make(data_list, DatasetConfig(augment_conf=noise), is_training=False)
    assert "recordings without words" not in caplog.text
    make(data_list, DatasetConfig(augment_conf=noise))
    assert "0 recordings without words" in caplog.text and "never drawn" in caplog.text


def test_labels_that_no_ctc_path_fits_are_left_out_alone(data_list, caplog):
    # 28 frames are 10 after the skip: 10 labels fit, 11 do not, nor 6 equal ones (5 blanks).
    wav = str(data_list.parent.parent / "utt00.wav")
    texts = {"a": "嗨小" * 5, "b": "嗨小" * 5 + "嗨", "c": "嗨" * 6, "d": "嗨" * 5}
    write_data_list(
        data_list,
        [Utterance(key=key, wav=wav, txt=text, duration=0.3) for key, text in texts.items()],
    )
    with caplog.at_level(logging.INFO):
        dataset = make(data_list, is_training=False)
    assert dataset.keys == ["a", "d"] and dataset.labels == [[2, 3] * 5, [2] * 5]
    assert "2 left out: no CTC path" in caplog.text
    # Played faster, 10 frames become 9: one label fewer fits; d still does.
    faster = DatasetConfig(augment_conf=AugmentConfig(copies=1, speeds=(1.1,)))
    assert make(data_list, faster).keys == ["d"]
    online = make(data_list, DatasetConfig(augment_conf=AugmentConfig(speeds=(1.1,))))
    assert "a" not in online.keys
    online.close()


def test_nothing_left_is_an_error(data_list):
    config = DatasetConfig(filter_conf=FilterConfig(max_length=3))
    with pytest.raises(DataError, match="no utterance is left: 12 more than 3 frames"):
        make(data_list, config)


def test_unreadable_audio_is_left_out_up_to_a_share(data_list):
    (data_list.parent.parent / "utt03.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(DataError, match="1 of 12.*utt03"):
        make(data_list)
    dataset = make(data_list, DatasetConfig(max_bad_fraction=0.1))
    assert len(dataset) == 11 and "utt03" not in dataset.keys
    assert (dataset.num_frames > 0).all()


AUGMENTED = {"noise_prob": 1.0, "speeds": (0.8, 1.25), "reverb_prob": 0.5}


def test_cached_copies_take_turns(data_list):
    config = DatasetConfig(augment_conf=AugmentConfig(copies=2, **AUGMENTED))
    dataset = make(data_list, config)
    zero, one, two = (dataset.batch(range(12), epoch) for epoch in range(3))
    assert torch.equal(zero.feats, two.feats)
    assert zero.feat_lengths.tolist() != one.feat_lengths.tolist()
    assert len(dataset.caches) == 2
    assert dataset.frames_in(1).tolist() == one.feat_lengths.tolist()
    clean = make(data_list, config, is_training=False)
    assert len(clean.caches) == 1
    ratios = clean.num_frames / dataset.num_frames
    assert ((ratios > 1.15) | (ratios < 0.85)).all()  # The speed is really applied.


@pytest.mark.parametrize("num_workers", [0, 2])
def test_on_the_fly(data_list, num_workers):
    config = DatasetConfig(augment_conf=AugmentConfig(**AUGMENTED))
    dataset = make(data_list, config, seed=1, num_workers=num_workers)
    try:
        zero, one = dataset.batch([5, 0, 7], 0), dataset.batch([5, 0, 7], 1)
        again, alone = dataset.batch([5, 0, 7], 0), dataset.batch([0], 0)
        plain = make(data_list).batch([5, 0, 7])
        assert torch.equal(zero.feats, again.feats)
        for other in (one, plain):
            assert zero.feats.shape != other.feats.shape or not torch.equal(zero.feats, other.feats)
        length = int(zero.feat_lengths[1])
        assert torch.equal(zero.feats[1, :length], alone.feats[0])
        assert (zero.feats[1, length:] == 0).all()
        assert zero.labels.tolist() == plain.labels.tolist()
        other_seed = make(data_list, config, seed=2)
        other = other_seed.batch([5, 0, 7], 0)
        assert other.feats.shape != zero.feats.shape or not torch.equal(other.feats, zero.feats)
        assert sum(len(b.keys) for b in batches(dataset, batch_size=5, epoch=3, shuffle=True)) == 12
    finally:
        dataset.close()


def test_on_the_fly_audio_that_goes_missing_is_an_error(data_list):
    config = DatasetConfig(augment_conf=AugmentConfig(gain_db=(-3.0, 3.0)))
    dataset = make(data_list, config)
    (data_list.parent.parent / "utt03.wav").unlink()
    with pytest.raises(DataError, match="utt03"):
        dataset.batch([3], 0)


def test_torch_data_loader_can_drive_it(data_list):
    dataset = make(data_list, DatasetConfig(augment_conf=AugmentConfig(**AUGMENTED)))
    loader = torch.utils.data.DataLoader(
        epoch_plan(dataset, batch_size=5, shuffle=True),
        batch_size=None,
        num_workers=2,
        collate_fn=dataset.batch,
        multiprocessing_context="fork",
    )
    loaded = {b.keys[0]: b for b in loader}
    assert sum(len(batch.keys) for batch in loaded.values()) == 12
    for indices in epoch_plan(dataset, batch_size=5, shuffle=True):
        here = dataset.batch(indices)
        assert torch.equal(loaded[here.keys[0]].feats, here.feats)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_of_all_ranks_are_the_epoch(data_list, shuffle):
    dataset = make(data_list)
    whole = list(batches(dataset, batch_size=5, epoch=2, seed=3, shuffle=shuffle))
    shares = [
        list(
            batches(
                dataset,
                batch_size=5,
                epoch=2,
                seed=3,
                rank=rank,
                world_size=2,
                shuffle=shuffle,
            )
        )
        for rank in range(2)
    ]
    assert [b.num_global for b in whole] == [5, 5, 2] == [b.num_global for b in shares[0]]
    for all_of_it, first, second in zip(whole, *shares, strict=True):
        assert all_of_it.keys[0::2] == first.keys and all_of_it.keys[1::2] == second.keys
        assert torch.equal(all_of_it.labels[0::2][:, : first.labels.shape[1]], first.labels)


def batch_threads():
    gc.collect()
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_leaving_early_ends_the_thread(data_list):
    dataset = make(data_list)
    for _ in batches(dataset, batch_size=2, shuffle=True):
        assert batch_threads()
        break
    assert not batch_threads()


def test_an_exception_of_the_consumer_ends_the_thread(data_list):
    def fail():
        for _ in batches(make(data_list), batch_size=2):
            raise KeyError("the consumer's")

    with pytest.raises(KeyError, match="consumer's"):
        fail()
    assert not batch_threads()


def test_an_exception_while_making_reaches_the_consumer_in_its_place():
    def reciprocal(number):
        return 1 / number

    made = []
    with pytest.raises(ZeroDivisionError):
        for value in _prefetch(reciprocal, [1, 2, 0, 4]):
            made.append(value)
    assert made == [1, 0.5] and not batch_threads()


def test_prefetch_makes_the_next_meanwhile():
    started = [threading.Event() for _ in range(3)]
    ahead = _prefetch(lambda i: started[i].set(), range(3))
    next(ahead)
    assert started[1].wait(timeout=5)
    assert not started[2].is_set()
    assert len(list(ahead)) == 2 and list(_prefetch(str, [])) == []


def test_online_augmentation_with_a_batch_in_which_nobody_is_joined(data_list):
    config = DatasetConfig(augment_conf=AugmentConfig(speeds=(0.9, 1.1), copies=0), join_prob=0.01)
    dataset = make(data_list, config)
    # At a share of 1 %, most batches join nobody.
    sizes = [
        len(batch.keys)
        for epoch in range(3)
        for batch in batches(dataset, batch_size=4, epoch=epoch)
    ]
    assert sizes == [4] * 9
    dataset.close()
