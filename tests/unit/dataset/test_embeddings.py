"""Embeddings of a list: the cache, and where their windows lie, to the frame."""

import dataclasses
import json
import os

import numpy as np
import pytest
import soundfile
import torch

from wekws.dataset.cache import FeatureCache
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.embeddings import open_embeddings
from wekws.dataset.extract import Extractor
from wekws.dataset.feature_view import AugmentConfig
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import read_data_list
from wekws.dataset.opening import open_dataset
from wekws.errors import DataError

PLAIN = DatasetConfig(spec_aug=False)
# A click at sample 12800, 800 ms.
CLICK_MS = 800.0


@pytest.fixture
def data_list(tmp_path):
    """Three recordings: a click in 2 s of near silence; 1.5 s without; 100 ms."""
    rng = np.random.default_rng(0)
    lines = []
    for key, num_samples in (("click", 32000), ("quiet", 24000), ("short", 1600)):
        samples = 1e-4 * rng.standard_normal(num_samples)
        if key == "click":
            samples[12800] = 0.9
        path = tmp_path / f"{key}.wav"
        soundfile.write(path, samples, 16000, subtype="FLOAT")
        row = {"key": key, "wav": str(path), "txt": "嗨", "duration": num_samples / 16000}
        lines.append(json.dumps(row))
    (tmp_path / "train").mkdir()
    path = tmp_path / "train/data.list"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def label_set(tone_corpus):
    return LabelSet.load(tone_corpus.dict_path, keywords_file=tone_corpus.keywords_path)


def opened(data_list, feature_teacher, tmp_path, num_workers=0):
    return open_embeddings(
        data_list,
        read_data_list(data_list),
        teacher_name=feature_teacher,
        cache_dir=tmp_path / "cache",
        num_workers=num_workers,
        max_bad_fraction=0.4,
    )


def cache_dirs(tmp_path):
    return sorted((tmp_path / "cache").glob("train_data_embeddings_*"))


def test_every_recording_has_one_embedding_per_window(data_list, feature_teacher, tmp_path):
    embeddings = opened(data_list, feature_teacher, tmp_path)
    # (32000 - 1840) // 640 + 1, (24000 - 1840) // 640 + 1, and 100 ms hold no window of 115 ms.
    assert embeddings.num_embeddings.tolist() == [48, 35, 0]
    space = embeddings.space()
    values = FeatureCache(cache_dirs(tmp_path)[0]).frames
    assert (space.window_ms, space.hop_ms, space.num_values) == (115, 40, 6)
    assert space.mean.numpy() == pytest.approx(values.mean(axis=0), rel=1e-5)
    assert space.deviation.numpy() == pytest.approx(values.std(axis=0), rel=1e-4)


def test_processes_give_the_same(data_list, feature_teacher, tmp_path):
    opened(data_list, feature_teacher, tmp_path / "alone")
    opened(data_list, feature_teacher, tmp_path / "pooled", num_workers=2)
    one, other = (FeatureCache(cache_dirs(tmp_path / n)[0]) for n in ("alone", "pooled"))
    assert np.array_equal(one.frames, other.frames)


def test_the_cache_is_used_until_audio_or_teacher_change(data_list, feature_teacher, tmp_path):
    first = opened(data_list, feature_teacher, tmp_path)
    meta = cache_dirs(tmp_path)[0] / "meta.json"
    built = meta.stat().st_mtime_ns
    again = opened(data_list, feature_teacher, tmp_path)
    assert meta.stat().st_mtime_ns == built and again.fingerprint == first.fingerprint
    soundfile.write(tmp_path / "quiet.wav", np.zeros(48000), 16000, subtype="FLOAT")
    os.utime(tmp_path / "quiet.wav", ns=(1, 1))
    assert opened(data_list, feature_teacher, tmp_path).num_embeddings[1] == 73
    assert meta.stat().st_mtime_ns != built and len(cache_dirs(tmp_path)) == 1


def test_unreadable_recordings_have_none(data_list, feature_teacher, tmp_path):
    (tmp_path / "quiet.wav").write_bytes(b"no audio")
    assert opened(data_list, feature_teacher, tmp_path).num_embeddings.tolist() == [48, 0, 0]


def test_a_list_of_short_recordings_is_refused(data_list, feature_teacher, tmp_path):
    data_list.write_text(data_list.read_text().splitlines()[2] + "\n")
    with pytest.raises(DataError, match="as long as the feature teacher's window of 115 ms"):
        opened(data_list, feature_teacher, tmp_path).space()


def windows_with_the_click(batch, row):
    """Which embeddings the click has part in, by their values: quiet windows are near 1."""
    valid = int(batch.embeddings.lengths[row])
    values = batch.embeddings.values[row, :valid, 0]
    return torch.nonzero(values > 1.5 * values.median()).flatten().tolist()


def loudest_frame(batch, row):
    return batch.feats[row].exp().sum(dim=1).argmax().item()


def training_set(data_list, label_set, feature_teacher, tmp_path, config=PLAIN, seed=0):
    return open_dataset(
        data_list,
        config,
        label_set,
        cache_dir=tmp_path / "cache",
        is_training=True,
        seed=seed,
        feature_teacher=feature_teacher,
    )


def test_places_in_frames_by_hand(data_list, label_set, feature_teacher, tmp_path):
    batch = training_set(data_list, label_set, feature_teacher, tmp_path).batch([0, 1])
    embeddings = batch.embeddings
    assert embeddings.lengths.tolist() == [48, 35] and embeddings.values.shape == (2, 48, 6)
    # Frame i of 25 ms is centred at 10 i + 12.5 ms: time 0 is frame -1.25, 115 ms frame 10.25.
    assert embeddings.starts[0, :3].tolist() == [-1.25, 2.75, 6.75]
    assert embeddings.ends[1, :3].tolist() == [10.25, 14.25, 18.25]
    # In model frames, one per 3.
    assert embeddings.every(3).starts[0, 1].item() == pytest.approx(2.75 / 3)


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("copies", [0, 2])
def test_the_click_is_in_the_windows_that_hold_its_frame(
    data_list, label_set, feature_teacher, tmp_path, speed, copies
):
    augment = AugmentConfig(copies=copies, speeds=(speed,), gain_db=(-3.0, 3.0))
    config = dataclasses.replace(PLAIN, augment_conf=augment)
    batch = training_set(data_list, label_set, feature_teacher, tmp_path, config).batch([0, 1], 1)
    # By hand: windows of 115 ms every 40 ms hold 800 ms from number 18 (720 to 835) to 20. The
    # first mel-like frames of 25 ms every 10 ms leave no gap.
    assert windows_with_the_click(batch, 0) == [18, 19, 20]
    frame = loudest_frame(batch, 0)
    assert frame == pytest.approx((CLICK_MS / speed - 12.5) / 10, abs=0.51)
    click = (CLICK_MS / speed - 12.5) / 10
    inside = (batch.embeddings.starts[0] <= click) & (click < batch.embeddings.ends[0])
    assert torch.nonzero(inside).flatten().tolist() == [18, 19, 20]


@pytest.mark.parametrize("copies", [0, 4])
@pytest.mark.parametrize("kind", ["speeds", "tempos"])
def test_speeds_are_those_of_the_features(
    data_list, label_set, feature_teacher, tmp_path, kind, copies
):
    augment = AugmentConfig(
        copies=copies, noise_prob=0.5, reverb_prob=0.5, seed=3, **{kind: (0.8, 1.0, 1.25)}
    )
    config = dataclasses.replace(PLAIN, augment_conf=augment)
    dataset = training_set(data_list, label_set, feature_teacher, tmp_path, config, seed=5)
    seen = set()
    for epoch in range(6):
        batch = dataset.batch([0, 1], epoch)
        for row, num_samples in enumerate((32000, 24000)):
            stretch = (batch.embeddings.ends - batch.embeddings.starts)[row, 0].item() / 11.5
            expected = (int(-(-num_samples * stretch // 1)) - 400) // 160 + 1
            assert batch.feat_lengths[row].item() == pytest.approx(expected, abs=1)
            seen.add(round(stretch, 3))
    assert seen == {1.25, 1.0, 0.8}


def test_places_move_with_joined_utterances(data_list, label_set, feature_teacher, tmp_path):
    config = dataclasses.replace(PLAIN, join_prob=1.0)
    dataset = training_set(data_list, label_set, feature_teacher, tmp_path, config)
    order = {0: "click", 1: "quiet", 2: "short"}
    lengths, counts = (198, 148, 8), (48, 35, 0)
    for epoch in range(8):
        batch = dataset.batch([0, 1, 2], epoch)
        for row in order:
            # The partner is told by the number of frames that it adds.
            added = int(batch.feat_lengths[row]) - lengths[row]
            partner = lengths.index(added) if added else None
            num = counts[row] + (counts[partner] if partner is not None else 0)
            assert batch.embeddings.lengths[row].item() == num
            clicks = windows_with_the_click(batch, row)
            expected = [18, 19, 20] if row == 0 else []
            if partner == 0:
                expected += [counts[row] + i for i in (18, 19, 20)]
            assert clicks == expected
            places = batch.embeddings.starts[row], batch.embeddings.ends[row]
            for first in [0] * (row == 0) + [lengths[row]] * (partner == 0):
                click = first + (CLICK_MS - 12.5) / 10
                inside = (places[0][:num] <= click) & (click < places[1][:num])
                assert set(torch.nonzero(inside).flatten().tolist()) <= set(clicks)
                assert inside.sum() == 3


def test_dev_sets_and_sets_without_a_teacher(data_list, label_set, feature_teacher, tmp_path):
    common = {"cache_dir": tmp_path / "cache", "is_training": False}
    plain = open_dataset(data_list, PLAIN, label_set, **common)
    assert plain.batch([0]).embeddings is None and plain.embeddings is None
    taught = open_dataset(data_list, PLAIN, label_set, **common, feature_teacher=feature_teacher)
    batch = taught.batch([2])
    assert batch.embeddings.values.shape == (1, 0, 6)
    assert torch.equal(batch.feats, plain.batch([2]).feats)


def test_speed_of_a_view_is_the_one_that_extraction_draws(data_list):
    """Whatever else is drawn after it; the length of the features tells the speed."""
    augment = AugmentConfig(speeds=(0.5, 1.0, 2.0), noise_prob=1.0, reverb_prob=1.0)
    view = dataclasses.replace(PLAIN.view(False), augment=augment, seed=9)
    utterances = read_data_list(data_list)
    extractor = Extractor(utterances, view)
    lengths = {0.5: 398, 1.0: 198, 2.0: 98}
    for copy in range(8):
        assert len(extractor.extract(0, copy)) == lengths[view.speed("click", copy)]


def test_a_tempo_changes_the_number_of_frames_and_not_the_pitch(data_list):
    """Frames of a steady tone are the same however far apart they are taken."""
    tone = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    utterances = read_data_list(data_list)
    soundfile.write(utterances[0].wav, 0.5 * tone, 16000)
    feats = {}
    for tempo in (0.5, 1.0, 1.25):
        augment = AugmentConfig(tempos=(tempo,), gain_db=(-6.0, -6.0))
        view = dataclasses.replace(PLAIN.view(False), augment=augment)
        assert view.speed("click", 0) == tempo
        feats[tempo] = Extractor(utterances, view).extract(0, 0)
    assert [len(values) for values in feats.values()] == [396, 198, 159]
    assert torch.allclose(feats[1.25][:, 5:20], feats[1.0][:159, 5:20], atol=0.5)
