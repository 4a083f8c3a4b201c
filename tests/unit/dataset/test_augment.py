import functools

import numpy as np
import pytest
import torch

from wekws.dataset.augment import (
    at_level,
    augment,
    change_speed,
    coloured_noise,
    mix_at_snr,
    spec_augment,
    through_microphone,
)
from wekws.dataset.codecs import opus_is_available
from wekws.dataset.feature_view import AugmentConfig, SpecAugConfig
from wekws.dataset.rooms import reverberate, room_impulse_response
from wekws.errors import ConfigError

RATE = 16000


def rng(seed=0):
    return np.random.default_rng(seed)


def tone(num_samples=RATE, frequency_hz=440.0):
    return np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / RATE).astype(np.float32)


def snr_db(speech, mixed):
    noise = mixed.astype(np.float64) - speech
    return 10 * np.log10(np.mean(np.square(speech, dtype=np.float64)) / np.mean(noise**2))


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_noise_has_the_slope_asked_for(exponent):
    noise = coloured_noise(1 << 17, exponent, rng())
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(len(noise))
    bands = np.geomspace(2e-3, 0.5, 9)
    means = [
        power[(frequency >= low) & (frequency < high)].mean()
        for low, high in zip(bands, bands[1:], strict=False)
    ]
    slope = np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(means), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)
    assert noise.dtype == np.float32
    assert np.mean(noise.astype(np.float64) ** 2) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("num_samples", [1, 2, 401, 46411])
def test_noise_of_any_length(num_samples):
    noise = coloured_noise(num_samples, 1, rng())
    assert noise.shape == (num_samples,) and np.isfinite(noise).all()


@pytest.mark.parametrize("wanted", [-5.0, 0.0, 15.0])
def test_snr_is_as_asked(wanted):
    speech = tone()
    for noise in (coloured_noise(RATE, 1, rng()), coloured_noise(777, 2, rng())):
        assert snr_db(speech, mix_at_snr(speech, noise, wanted)) == pytest.approx(wanted, abs=0.01)


def test_silence_has_no_snr():
    silence = np.zeros(100, np.float32)
    assert np.array_equal(mix_at_snr(silence, np.ones(100, np.float32), 0), silence)
    assert np.array_equal(mix_at_snr(tone(100), silence, 0), tone(100))


def test_room_decays_as_asked_and_does_not_delay():
    rt60_s = 0.4
    rir = room_impulse_response(rt60_s, RATE, rng())
    assert rir[0] == 1 and len(rir) >= rt60_s * RATE
    tail = np.square(rir[int(0.005 * RATE) + 1 :].astype(np.float64))
    remaining = 10 * np.log10(np.cumsum(tail[::-1])[::-1])
    # Schroeder's curve, 5 to 35 dB down, is half the way of 60 dB.
    start, end = (np.argmax(remaining < remaining[0] - drop) for drop in (5, 35))
    assert (end - start) * 2 / RATE == pytest.approx(rt60_s, rel=0.1)


def test_reverberation_lengthens_the_tail_and_keeps_length_and_power():
    speech = np.concatenate((tone(RATE // 2), np.zeros(RATE // 2, np.float32)))
    wet = reverberate(speech, room_impulse_response(0.5, RATE, rng()))
    assert wet.shape == speech.shape and wet.dtype == np.float32
    assert np.mean(wet**2) == pytest.approx(np.mean(speech**2), rel=1e-3)
    early, late = (wet[RATE // 2 :][part] for part in (slice(0, 800), slice(-800, None)))
    assert np.abs(early).max() > 0.05  # The speech is over, the room still sounds,
    assert np.mean(late**2) < 1e-2 * np.mean(early**2)  # and dies away.


def test_reverberation_is_a_convolution():
    speech, rir = tone(300), room_impulse_response(0.01, RATE, rng())
    expected = np.convolve(speech, rir)[:300]
    expected *= np.sqrt(np.mean(speech**2) / np.mean(expected**2))
    np.testing.assert_allclose(reverberate(speech, rir), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [0.9, 1.1, 0.5, 2.0])
def test_speed_changes_length_and_pitch(factor):
    fast = change_speed(tone(), factor, RATE)
    assert len(fast) == pytest.approx(RATE / factor, abs=1)
    peak_hz = np.argmax(np.abs(np.fft.rfft(fast))) * RATE / len(fast)
    assert peak_hz == pytest.approx(440 * factor, abs=1.5)


def test_speed_one_changes_nothing():
    np.testing.assert_array_equal(change_speed(tone(), 1.0, RATE), tone())


def test_augment_same_seed_same_bytes():
    config = AugmentConfig(
        speeds=(0.9, 1.0, 1.1), gain_db=(-6.0, 6.0), noise_prob=0.5, reverb_prob=0.5
    )
    babble = lambda n, generator: generator.standard_normal(n).astype(np.float32)  # noqa: E731
    outputs = {
        augment(
            tone(), config, sample_rate_hz=RATE, rng=rng(seed), pools={"babble": babble}
        ).tobytes()
        for seed in range(20)
    }
    again = augment(tone(), config, sample_rate_hz=RATE, rng=rng(3), pools={"babble": babble})
    assert len(outputs) == 20 and again.tobytes() in outputs and again.dtype == np.float32


def test_augment_applies_each_part():
    speech = tone()
    noisy = augment(
        speech,
        AugmentConfig(noise_prob=1.0, noise_snr_db=(7.0, 7.0)),
        sample_rate_hz=RATE,
        rng=rng(),
    )
    assert snr_db(speech, noisy) == pytest.approx(7, abs=0.01)
    louder = augment(speech, AugmentConfig(gain_db=(6.0, 6.0)), sample_rate_hz=RATE, rng=rng())
    np.testing.assert_allclose(louder, speech * 10 ** (6 / 20), rtol=1e-5)
    assert (
        len(augment(speech, AugmentConfig(speeds=(1.25,)), sample_rate_hz=RATE, rng=rng())) == 12800
    )
    assert not np.allclose(
        augment(speech, AugmentConfig(reverb_prob=1.0), sample_rate_hz=RATE, rng=rng()), speech
    )


def test_augment_draws_pools():
    config = AugmentConfig(noise_prob=1.0, noise_kinds=("babble",), noise_snr_db=(0.0, 0.0))
    other = tone(frequency_hz=1000.0)
    mixed = augment(
        tone(), config, sample_rate_hz=RATE, rng=rng(), pools={"babble": lambda n, _: other[:n]}
    )
    np.testing.assert_allclose(mixed, tone() + other, atol=1e-3)
    assert np.array_equal(
        augment(tone(), config, sample_rate_hz=RATE, rng=rng()), tone()
    )  # No pool, no noise.
    config = AugmentConfig(noise_prob=1.0, noise_kinds=(), noise_dir="x", noise_snr_db=(0.0, 0.0))
    mixed = augment(
        tone(), config, sample_rate_hz=RATE, rng=rng(), recorded_pools={"x": lambda n, _: other[:n]}
    )
    np.testing.assert_allclose(mixed, tone() + other, atol=1e-3)


def test_kinds_of_noise_have_weights():
    config = AugmentConfig(noise_prob=1.0, noise_kinds={"white": 1.0, "background": 3.0})
    drawn = []
    pools = {"background": lambda n, generator: drawn.append(n) or generator.standard_normal(n)}
    for i in range(1000):
        augment(tone(50), config, sample_rate_hz=RATE, rng=rng(i), pools=pools)
    assert len(drawn) == pytest.approx(750, abs=45)
    with pytest.raises(ConfigError, match="noise_kinds: .*expected weights > 0"):
        AugmentConfig(noise_kinds={"white": 0.0})


def test_noise_folders_have_weights():
    folders = {"a": 3.0, "b": 1.0}
    config = AugmentConfig(noise_prob=1.0, noise_kinds=("white",), noise_dir=folders)
    drawn = {"a": 0, "b": 0}

    def pool(folder, num_samples, generator):
        drawn[folder] += 1
        return generator.standard_normal(num_samples)

    pools = {folder: functools.partial(pool, folder) for folder in drawn}
    for i in range(1000):
        augment(tone(50), config, sample_rate_hz=RATE, rng=rng(i), recorded_pools=pools)
    # White noise weighs 1: shares of 3/5 and 1/5.
    assert drawn["a"] == pytest.approx(600, abs=50) and drawn["b"] == pytest.approx(200, abs=40)


def test_level_is_as_asked_and_never_clips():
    quiet = at_level(tone(), -40.0)
    assert 20 * np.log10(np.sqrt(np.mean(quiet.astype(np.float64) ** 2))) == pytest.approx(-40)
    clicks = np.zeros(RATE, np.float32)
    clicks[::1000] = 0.1
    # 16 of 16000 samples: the RMS of a full-scale peak is -30 dBFS, so -20 would clip.
    assert np.abs(at_level(clicks, -20.0)).max() == pytest.approx(1.0)
    silence = np.zeros(10, np.float32)
    assert np.array_equal(at_level(silence, -20.0), silence)


def test_level_comes_after_room_noise_and_gain():
    config = AugmentConfig(
        reverb_prob=1.0, noise_prob=1.0, gain_db=(3.0, 3.0), level_prob=1.0, level_dbfs=(-35, -35)
    )
    out = augment(tone(), config, sample_rate_hz=RATE, rng=rng())
    assert 10 * np.log10(np.mean(out.astype(np.float64) ** 2)) == pytest.approx(-35, abs=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"reverb_prob": 1.0, "room_kinds": ("shoebox",)},
        {"reverb_prob": 1.0, "room_kinds": ("diffuse", "shoebox")},
        {"reverb_prob": 1.0, "room_kinds": (), "rir_dir": "x"},
        {"level_prob": 1.0},
        {"telephone_prob": 1.0},
        {"microphone_prob": 1.0},
        pytest.param(
            {"opus_prob": 1.0},
            marks=pytest.mark.skipif(not opus_is_available(), reason="libsndfile without Opus"),
        ),
    ],
)
def test_each_part_alone(settings):
    config = AugmentConfig(**settings)
    assert config.is_active
    speech = tone() * np.hanning(RATE).astype(np.float32)
    outputs = []
    for seed in (0, 1, 0):
        out = augment(
            speech, config, sample_rate_hz=RATE, rng=rng(seed),
            room_pool=lambda generator: np.array([1, 0, 0.5 * generator.random()], np.float32),
        )  # fmt: skip
        assert out.shape == speech.shape and out.dtype == np.float32 and np.isfinite(out).all()
        assert not np.array_equal(out, speech)
        outputs.append(out)
    assert np.array_equal(outputs[0], outputs[2])
    if "telephone_prob" not in settings:
        assert not np.array_equal(outputs[0], outputs[1])


def test_recorded_rooms_are_one_kind_of_three():
    config = AugmentConfig(reverb_prob=1.0, room_kinds=("diffuse", "shoebox"), rir_dir="x")
    drawn = []

    def pool(generator):
        drawn.append(1)
        return np.ones(1, np.float32)

    for i in range(300):
        augment(tone(50), config, sample_rate_hz=RATE, rng=rng(i), room_pool=pool)
    assert len(drawn) == pytest.approx(100, abs=25)


def test_what_is_off_draws_nothing():
    """With the new parts off, the random numbers are those of the first version, in its order."""
    config = AugmentConfig(speeds=(0.9, 1.1), reverb_prob=1.0, noise_prob=1.0, gain_db=(-6.0, 6.0))
    generator = rng(5)
    expected = change_speed(tone(), config.speeds[generator.integers(2)], RATE)
    generator.random()
    rir = room_impulse_response(generator.uniform(0.1, 0.6), RATE, generator)
    expected = reverberate(expected, rir)
    generator.random()
    exponent = generator.integers(3)  # white, pink, brown; no source of babble
    noise = coloured_noise(len(expected), float(exponent), generator)
    expected = mix_at_snr(expected, noise, generator.uniform(0.0, 15.0))
    expected = expected * np.float32(10 ** (generator.uniform(-6.0, 6.0) / 20))
    out = augment(tone(), config, sample_rate_hz=RATE, rng=rng(5))
    assert np.array_equal(out, expected)


def test_probabilities_hold():
    config = AugmentConfig(noise_prob=0.3, noise_kinds=("white",))
    changed = [
        not np.array_equal(augment(tone(50), config, sample_rate_hz=RATE, rng=rng(i)), tone(50))
        for i in range(500)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    "wrong",
    [
        {"copies": -1},
        {"speeds": ()},
        {"speeds": (3.0,)},
        {"noise_prob": 1.5},
        {"noise_snr_db": (5.0, 0.0)},
        {"reverb_rt60_s": (0.0, 0.5)},
        {"noise_prob": 0.5, "noise_kinds": ()},
        {"noise_dir": {"a": 0.0}},
        {"reverb_prob": 0.5, "room_kinds": ()},
        {"room_distance_m": (0.0, 1.0)},
        {"level_prob": -0.1},
        {"level_dbfs": (-20.0, 1.0)},
        {"telephone_prob": 2.0},
        {"opus_prob": 2.0},
        {"microphone_prob": 2.0},
        {"microphone_db": -1.0},
        {"tempos": (3.0,)},
        {"tempos": ()},
        {"opus_kbps": (4.0, 16.0)},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AugmentConfig(**wrong)


def masked_cells(lengths, config, seed, num_frames=60, num_bins=20):
    feats = torch.ones(len(lengths), num_frames, num_bins)
    for b, length in enumerate(lengths):
        feats[b, length:] = 0
    fill = -torch.arange(1.0, num_bins + 1)
    generator = torch.Generator().manual_seed(seed)
    out = spec_augment(feats, torch.tensor(lengths), config=config, generator=generator, fill=fill)
    assert ((out == feats) | (out == fill)).all()
    for b, length in enumerate(lengths):
        assert (out[b, length:] == 0).all()
    return out == fill


def test_time_masks_are_whole_frames_within_bounds():
    config = SpecAugConfig(num_t_mask=1, num_f_mask=0, max_t=10, max_f=5)
    widths = set()
    for seed in range(60):
        for length, cells in zip((60, 4, 1), masked_cells([60, 4, 1], config, seed), strict=True):
            rows = cells.all(dim=1)
            assert torch.equal(cells, rows[:, None].expand_as(cells))
            widths.add((length, int(rows.sum())))
            assert (rows.int().diff() != 0).sum() <= 2  # One stretch.
    assert {width for length, width in widths if length == 60} == set(range(11))
    assert {width for length, width in widths if length == 4} == set(range(5))
    assert {width for length, width in widths if length == 1} == {0, 1}


def test_frequency_masks_span_valid_frames():
    config = SpecAugConfig(num_t_mask=0, num_f_mask=2, max_t=10, max_f=3)
    widths = set()
    for seed in range(60):
        for length, cells in zip((60, 7), masked_cells([60, 7], config, seed), strict=True):
            columns = cells[0]
            assert torch.equal(cells[:length], columns.expand(length, -1))
            widths.add(int(columns.sum()))
    assert widths == set(range(7))  # Two masks of 0 to 3 bins, apart or overlapping.


def test_spec_augment_is_the_generators():
    config = SpecAugConfig(num_t_mask=2, num_f_mask=2)
    first, again, other = (masked_cells([60, 50], config, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_spec_augment_leaves_its_input_alone():
    feats = torch.ones(1, 30, 8)
    generator = torch.Generator().manual_seed(0)
    out = spec_augment(
        feats, torch.tensor([30]), config=SpecAugConfig(), generator=generator, fill=torch.zeros(8)
    )
    assert (feats == 1).all() and not torch.equal(out, feats)
    none = SpecAugConfig(num_t_mask=0, num_f_mask=0)
    out = spec_augment(
        feats, torch.tensor([30]), config=none, generator=generator, fill=torch.zeros(8)
    )
    assert torch.equal(out, feats)


def test_a_microphone_changes_each_frequency_within_its_bounds():
    noise = coloured_noise(1 << 15, 0, rng())
    heard = through_microphone(noise, 12.0, rng(1))
    change_db = 20 * np.log10(np.abs(np.fft.rfft(heard)) / np.abs(np.fft.rfft(noise)))
    assert np.abs(change_db[1:]).max() < 12.5 and np.ptp(change_db[1:]) > 6
    # Smooth: neighbouring frequencies pass alike.
    assert np.abs(np.diff(change_db[100:])).max() < 0.5


def test_a_microphone_without_range_changes_nothing():
    assert np.allclose(through_microphone(tone(), 0.0, rng()), tone(), atol=1e-6)


@pytest.mark.parametrize("num_samples", [1, 401])
def test_a_microphone_takes_any_length(num_samples):
    assert through_microphone(tone(num_samples), 12.0, rng()).shape == (num_samples,)
