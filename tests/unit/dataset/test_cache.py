import dataclasses
import json
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wekws.dataset import cache as cache_module
from wekws.dataset.audio import read_audio
from wekws.dataset.cache import FeatureCache, cache_fingerprint, open_cache, padded_index
from wekws.dataset.dataset_conf import DatasetConfig, load_dataset_config
from wekws.dataset.extract import Extractor
from wekws.dataset.feature_view import AugmentConfig, FeatureView, copy_rng
from wekws.dataset.features import fbank
from wekws.dataset.manifest import Utterance
from wekws.errors import DataError

ROOT = Path(__file__).parents[3]
RATE = 16000
FRONT_END = DatasetConfig().front_end
PLAIN = FeatureView(front_end=FRONT_END)
NOISY = dataclasses.replace(
    PLAIN,
    augment=AugmentConfig(
        copies=2, speeds=(0.9, 1.1), noise_prob=1.0, reverb_prob=0.5, gain_db=(-3.0, 3.0)
    ),
    dither=1.0,
)


@pytest.fixture
def utterances(tmp_path):
    """Five files of noise, 0.1 to 0.5 s."""
    rng, result = np.random.default_rng(0), []
    for i in range(5):
        path = tmp_path / f"utt{i}.wav"
        soundfile.write(path, rng.uniform(-0.3, 0.3, 1600 * (i + 1)), RATE)
        result.append(Utterance(key=f"utt{i}", wav=str(path), txt="A", duration=0.1 * (i + 1)))
    return result


def features(cache):
    return cache.frames.copy()


def test_padded_index_by_hand():
    # Runs of 2, 0 and 3 rows end to end; row 5 is padding.
    offsets = np.array([0, 2, 2, 5])
    index = padded_index(offsets, np.array([2, 0, 1]), padding=5)
    assert index.tolist() == [[2, 3, 4], [0, 1, 5], [5, 5, 5]]
    assert padded_index(offsets, np.array([1]), padding=5).shape == (1, 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_cache_holds_what_fbank_gives(tmp_path, utterances, num_workers):
    cache = open_cache(tmp_path / "cache", utterances, PLAIN, num_workers=num_workers)
    indices = np.array([3, 0, 4])
    batch = cache.gather(indices)
    assert batch.shape == (3, int(cache.num_frames.max()), 80) and batch.dtype == np.float32
    for row, i in zip(batch, indices, strict=True):
        expected = fbank(read_audio(utterances[i].wav, RATE), FRONT_END).numpy()
        assert len(expected) == cache.num_frames[i]
        np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-4)
        assert (row[len(expected) :] == 0).all()
    assert len(cache.frames) == cache.num_frames.sum() and cache.failures == {}


def test_processes_give_the_same_bytes(tmp_path, utterances):
    alone = open_cache(tmp_path / "alone", utterances, NOISY, num_workers=0)
    pooled = open_cache(tmp_path / "pooled", utterances, NOISY, num_workers=2)
    assert np.array_equal(features(alone), features(pooled))


def test_second_opening_reads_what_is_there(tmp_path, utterances, monkeypatch):
    first = open_cache(tmp_path / "cache", utterances, PLAIN)
    monkeypatch.setattr(cache_module, "_build", lambda *_: pytest.fail("built again"))
    assert np.array_equal(
        features(open_cache(tmp_path / "cache", utterances, PLAIN)), features(first)
    )


def test_unused_settings_do_not_rebuild(utterances):
    """Dither has no part in a view without it, nor the number of copies in one copy."""
    quiet = dataclasses.replace(PLAIN, seed=5, copy=2)
    assert cache_fingerprint(utterances, quiet) == cache_fingerprint(utterances, PLAIN)
    more = dataclasses.replace(NOISY, augment=dataclasses.replace(NOISY.augment, copies=7, seed=3))
    assert cache_fingerprint(utterances, more) == cache_fingerprint(utterances, NOISY)


def test_the_expected_dither_is_of_views_without_dither_alone(utterances):
    """Caches of training stay valid."""
    end = dataclasses.replace(FRONT_END, expected_dither=0.5)
    for view, is_same in ((PLAIN, False), (NOISY, True)):
        other = dataclasses.replace(view, front_end=end)
        same = cache_fingerprint(utterances, other) == cache_fingerprint(utterances, view)
        assert same == is_same


@pytest.mark.parametrize(
    "change",
    [
        {"front_end": dataclasses.replace(FRONT_END, sample_rate_hz=8000)},
        {"front_end": dataclasses.replace(FRONT_END, num_mel_bins=40)},
        {"front_end": dataclasses.replace(FRONT_END, frame_shift_ms=5.0)},
        {"front_end": dataclasses.replace(FRONT_END, frame_length_ms=20.0)},
        {"dither": 0.5},
        {"augment": None},
        {"augment": dataclasses.replace(NOISY.augment, noise_snr_db=(0.0, 1.0))},
        {"augment": dataclasses.replace(NOISY.augment, speeds=(0.9,))},
        {"copy": 1},
        {"seed": 1},
    ],
)
def test_each_setting_rebuilds(tmp_path, utterances, change):
    before = features(open_cache(tmp_path / "cache", utterances, NOISY))
    after = features(
        open_cache(tmp_path / "cache", utterances, dataclasses.replace(NOISY, **change))
    )
    assert before.shape != after.shape or not np.array_equal(before, after)


def test_each_change_of_files_rebuilds(tmp_path, utterances):
    original = cache_fingerprint(utterances, PLAIN)
    seen = {original}
    for changed in (
        utterances[:-1],
        utterances[::-1],
        [utterances[0]._replace(key="other"), *utterances[1:]],
        [utterances[0]._replace(wav=utterances[1].wav), *utterances[1:]],
    ):
        seen.add(cache_fingerprint(changed, PLAIN))
    assert len(seen) == 5
    relabelled = [utterances[0]._replace(txt="B"), *utterances[1:]]
    assert cache_fingerprint(relabelled, PLAIN) == original
    os.utime(utterances[2].wav, ns=(1, 1))
    seen.add(cache_fingerprint(utterances, PLAIN))
    soundfile.write(utterances[2].wav, np.zeros(1000), RATE)
    seen.add(cache_fingerprint(utterances, PLAIN))
    os.remove(utterances[2].wav)
    seen.add(cache_fingerprint(utterances, PLAIN))
    assert len(seen) == 8


def test_noise_recordings_are_part_of_the_fingerprint(tmp_path, utterances):
    noise_dir = tmp_path / "noise"
    noise_dir.mkdir()
    augmentation = AugmentConfig(noise_prob=1.0, noise_kinds=(), noise_dir=str(noise_dir))
    view = dataclasses.replace(PLAIN, augment=augmentation)
    with pytest.raises(DataError, match="no .wav, .flac, .ogg, .opus, .mp3 file"):
        open_cache(tmp_path / "cache", utterances, view)
    soundfile.write(noise_dir / "a.wav", np.random.default_rng(0).uniform(-1, 1, 900), RATE)
    first = cache_fingerprint(utterances, view)
    noisy = open_cache(tmp_path / "cache", utterances, view)
    assert not np.allclose(noisy.frames, open_cache(tmp_path / "plain", utterances, PLAIN).frames)
    soundfile.write(noise_dir / "b.flac", np.ones(900) * 0.5, RATE)
    assert cache_fingerprint(utterances, view) != first


def test_recorded_rooms_and_noise_folders_are_used_and_in_the_fingerprint(tmp_path, utterances):
    for name, samples in (("rooms", [0, 1, 0, 0, 0.6]), ("hum", np.ones(300)), ("hiss", [1, -1])):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", 0.5 * np.array(samples, float), RATE)
    rooms, hum, hiss = (str(tmp_path / name) for name in ("rooms", "hum", "hiss"))
    augmentation = AugmentConfig(reverb_prob=1.0, room_kinds=(), rir_dir=rooms)
    view = dataclasses.replace(PLAIN, augment=augmentation)
    cache = open_cache(tmp_path / "cache", utterances, view)
    speech = read_audio(utterances[0].wav, RATE)
    wet = speech + 0.6 * np.concatenate((np.zeros(3, np.float32), speech))[: len(speech)]
    wet *= np.sqrt(np.mean(speech**2) / np.mean(wet**2))
    expected = fbank(wet.astype(np.float32), FRONT_END).numpy()
    np.testing.assert_allclose(cache.frames[: len(expected)], expected, atol=0.01)
    before = cache_fingerprint(utterances, view)
    soundfile.write(tmp_path / "rooms" / "b.wav", np.ones(4) * 0.5, RATE)
    assert cache_fingerprint(utterances, view) != before

    noise = AugmentConfig(noise_prob=1.0, noise_kinds=(), noise_dir={hum: 1.0, hiss: 2.0})
    view = dataclasses.replace(PLAIN, augment=noise)
    assert np.isfinite(open_cache(tmp_path / "noisy", utterances, view).frames).all()
    before = cache_fingerprint(utterances, view)
    soundfile.write(tmp_path / "hiss" / "b.wav", np.ones(4) * 0.5, RATE)
    assert cache_fingerprint(utterances, view) != before


def test_caches_of_earlier_versions_stay_valid():
    """The identity of the shipped augmentation, as version 0.1 wrote it."""
    config = load_dataset_config(ROOT / "conf/overlays/small_corpus.yaml")
    assert config.cached_views(is_training=True)[2].identity() == {
        "augment": {
            "gain_db": (-6.0, 6.0),
            "noise_dir": "",
            "noise_kinds": ("white", "pink", "brown", "babble"),
            "noise_prob": 0.5,
            "noise_snr_db": (5.0, 25.0),
            "reverb_prob": 0.3,
            "reverb_rt60_s": (0.1, 0.5),
            "speeds": (0.9, 1.0, 1.1),
        },
        "copy": 2,
        "dither": 1.0,
        "fbank": {"num_mel_bins": 80, "frame_shift": 10.0, "frame_length": 25.0},
        "sample_rate_hz": 16000,
        "seed": 0,
        "version": 1,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"room_kinds": ("shoebox",)},
        {"room_distance_m": (1.0, 2.0)},
        {"tempos": (1.0, 1.2)},
        {"microphone_prob": 0.5},
        {"microphone_db": 6.0},
        {"level_prob": 0.5},
        {"level_dbfs": (-30.0, -20.0)},
        {"telephone_prob": 0.5},
        {"opus_prob": 0.5},
        {"opus_kbps": (8.0, 8.0)},
        {"rir_dir": "rooms"},
    ],
)
def test_each_later_setting_is_in_the_identity(change):
    changed = dataclasses.replace(NOISY.augment, **change)
    view = dataclasses.replace(NOISY, augment=changed)
    assert view.identity() != NOISY.identity()


def test_changed_audio_gives_new_features(tmp_path, utterances):
    before = features(open_cache(tmp_path / "cache", utterances, PLAIN))
    soundfile.write(utterances[0].wav, np.full(1600, 0.25), RATE)
    after = features(open_cache(tmp_path / "cache", utterances, PLAIN))
    assert before.shape == after.shape
    assert not np.array_equal(before[:8], after[:8]) and np.array_equal(before[8:], after[8:])


def test_copies_differ_and_are_reproducible(tmp_path, utterances):
    views = [dataclasses.replace(NOISY, copy=copy) for copy in (0, 1, 0)]
    first, second, again = (
        features(open_cache(tmp_path / f"copy{i}", utterances, view))
        for i, view in enumerate(views)
    )
    assert np.array_equal(first, again)
    assert first.shape != second.shape or not np.allclose(first, second)


def test_a_copy_depends_on_seed_copy_and_key_alone(utterances):
    extractor = Extractor(utterances, dataclasses.replace(NOISY, augment=None))
    shuffled = Extractor(utterances[::-1], dataclasses.replace(NOISY, augment=None))
    assert torch.equal(extractor.extract(1, 3), shuffled.extract(3, 3))
    draws = {copy_rng(*which).random() for which in ((0, 1, "a"), (1, 0, "a"), (0, 1, "b"))}
    assert len(draws) == 3


def test_babble_is_other_utterances(tmp_path):
    """Of a tone and two noises, babble over the tone must be noise, over a noise the tone too."""
    wave = np.sin(np.arange(RATE) * 0.3) * 0.5
    paths = [tmp_path / name for name in ("tone.wav", "zero1.wav", "zero2.wav")]
    for path, samples in zip(paths, (wave, wave * 0, wave * 0), strict=True):
        soundfile.write(path, samples, RATE)
    listed = [Utterance(key=p.stem, wav=str(p), txt="", duration=1.0) for p in paths]
    extractor = Extractor(listed, NOISY)
    rng = np.random.default_rng(0)
    assert (extractor._babble(0, 500, rng) == 0).all()  # The others are silent.
    mixed = extractor._babble(1, 500, rng)
    assert mixed.shape == (500,) and np.mean(mixed**2) == pytest.approx(1, rel=1e-3)


def test_background_is_part_of_another_utterance_without_words(tmp_path):
    """Of two tones and two recordings with words, only the tones are background."""
    texts = {"low": "<filler>", "word": "JARVIS", "high": "<noise>", "more": "<filler> JARVIS"}
    seconds = np.arange(2 * RATE) / RATE
    listed = []
    for number, (name, text) in enumerate(texts.items()):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.1 * np.sin(2 * np.pi * 100 * (1 + number) * seconds), RATE)
        listed.append(Utterance(key=name, wav=str(path), txt=text, duration=2.0))
    background = AugmentConfig(noise_prob=1.0, noise_kinds=("background",))
    view = dataclasses.replace(NOISY, augment=background)
    extractor = Extractor(listed, view)
    found = set()
    for seed in range(60):
        own = seed % 4
        noise = extractor._background(own, 800, np.random.default_rng(seed))
        assert noise.shape == (800,) and np.mean(noise**2) == pytest.approx(1, rel=1e-2)
        frequency = np.argmax(np.abs(np.fft.rfft(noise))) * RATE / 800
        found.add((own, round(frequency / 100) - 1))
    assert found == {(0, 2), (1, 0), (1, 2), (2, 0), (3, 0), (3, 2)}
    # Another transcript changes the background, and with it the features; without it, none.
    changed = [listed[0], listed[1]._replace(txt="<filler>"), *listed[2:]]
    assert cache_fingerprint(changed, view) != cache_fingerprint(listed, view)
    assert cache_fingerprint(changed, NOISY) == cache_fingerprint(listed, NOISY)


def test_without_recordings_without_words_there_is_no_background(tmp_path, utterances):
    background = AugmentConfig(noise_prob=1.0, noise_kinds=("white", "background"))
    extractor = Extractor(utterances, dataclasses.replace(NOISY, augment=background))
    assert set(extractor._pools(0)) == {"babble"}


def corrupt(utterance, content=b"RIFF no wave at all"):
    with open(utterance.wav, "wb") as stream:
        stream.write(content)


def test_unreadable_utterances_are_named_and_have_no_frames(tmp_path, utterances, caplog):
    corrupt(utterances[1])
    os.remove(utterances[3].wav)
    soundfile.write(utterances[0].wav, np.zeros(100), RATE)  # Shorter than one window.
    for _ in range(2):  # The second time from the finished cache.
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            cache = open_cache(tmp_path / "cache", utterances, PLAIN, max_bad_fraction=0.6)
        assert set(cache.failures) == {"utt0", "utt1", "utt3"}
        assert all(key in caplog.text for key in cache.failures)
    assert (cache.num_frames == 0).tolist() == [True, True, False, True, False]
    assert cache.gather(np.array([1, 2])).shape[1] == cache.num_frames[2]


def test_too_many_unreadable_utterances_are_an_error(tmp_path, utterances):
    corrupt(utterances[1])
    with pytest.raises(DataError, match="1 of 5 utterances.*max_bad_fraction 0.01.*utt1"):
        open_cache(tmp_path / "cache", utterances, PLAIN)
    assert not (tmp_path / "cache").exists()
    open_cache(tmp_path / "cache", utterances, PLAIN, max_bad_fraction=0.2)
    with pytest.raises(DataError, match="1 of 5"):
        open_cache(tmp_path / "cache", utterances, PLAIN, max_bad_fraction=0.1)


def test_all_unreadable_is_always_an_error(tmp_path, utterances):
    for utterance in utterances:
        corrupt(utterance)
    with pytest.raises(DataError, match="5 of 5"):
        open_cache(tmp_path / "cache", utterances, PLAIN, max_bad_fraction=1.0)


def test_a_failed_build_leaves_the_old_cache_and_no_litter(tmp_path, utterances):
    old = features(open_cache(tmp_path / "caches" / "train", utterances, PLAIN))
    corrupt(utterances[1])
    with pytest.raises(DataError):
        open_cache(tmp_path / "caches" / "train", utterances, PLAIN)
    assert np.array_equal(features(FeatureCache(tmp_path / "caches" / "train")), old)
    assert {p.name for p in (tmp_path / "caches").iterdir()} == {"train", ".train.lock"}


@pytest.mark.parametrize("name", ["feats.npy", "offsets.npy", "meta.json"])
def test_a_damaged_cache_is_built_anew(tmp_path, utterances, name, caplog):
    good = features(open_cache(tmp_path / "cache", utterances, PLAIN))
    content = (tmp_path / "cache" / name).read_bytes()
    (tmp_path / "cache" / name).write_bytes(content[: len(content) // 2])
    assert np.array_equal(features(open_cache(tmp_path / "cache", utterances, PLAIN)), good)
    assert "damaged" in caplog.text


def test_two_at_once_build_one(tmp_path, utterances, monkeypatch):
    builds, build = [], cache_module._build
    monkeypatch.setattr(cache_module, "_build", lambda *args: (builds.append(1), build(*args))[1])
    threads = [
        threading.Thread(target=open_cache, args=(tmp_path / "cache", utterances, PLAIN))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(FeatureCache(tmp_path / "cache").num_frames) == 5


def test_conversions_are_said_once(tmp_path, utterances, caplog):
    stereo = np.random.default_rng(0).uniform(-0.3, 0.3, (4800, 2))
    soundfile.write(utterances[0].wav, stereo, 48000)
    with caplog.at_level(logging.INFO):
        cache = open_cache(tmp_path / "cache", utterances, PLAIN)
    logged = [record.getMessage() for record in caplog.records if "1 of 5" in record.getMessage()]
    assert len(logged) == 1 and "48000 Hz" in logged[0] and "2 channels" in logged[0]
    assert cache.num_frames[0] == 8


def test_a_full_disk_is_foreseen(tmp_path, utterances):
    endless = [utterances[0]._replace(duration=1e12)]
    with pytest.raises(DataError, match="GiB free"):
        open_cache(tmp_path / "cache", endless, PLAIN)


def test_meta_is_readable(tmp_path, utterances):
    open_cache(tmp_path / "cache", utterances, NOISY)
    meta = json.loads((tmp_path / "cache" / "meta.json").read_text(encoding="utf-8"))
    assert meta["view"]["augment"]["noise_prob"] == 1.0
    assert meta["fingerprint"] == cache_fingerprint(utterances, NOISY)
