import acoustics
import numpy as np
import pytest

RATE = acoustics.SAMPLE_RATE_HZ


@pytest.mark.parametrize("frequency_hz", [200, 1000, 5000])
def test_resampler_keeps_a_tone(frequency_hz):
    time = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * frequency_hz * time).astype(np.float32)
    resampled = acoustics.Resampler(22050, RATE)(tone)
    assert len(resampled) == RATE
    wanted = np.sin(2 * np.pi * frequency_hz * np.arange(RATE) / RATE)
    assert np.abs(resampled[500:-500] - wanted[500:-500]).max() < 0.01


def test_resampler_removes_what_the_new_rate_cannot_hold():
    tone = np.sin(2 * np.pi * 9500 * np.arange(22050) / 22050).astype(np.float32)
    assert np.abs(acoustics.Resampler(22050, RATE)(tone)[500:-500]).max() < 0.02


def test_resampler_takes_any_length():
    resample = acoustics.Resampler(22050, RATE)
    # ceil(N * 320 / 441)
    assert [len(resample(np.ones(n, np.float32))) for n in (1, 441, 442)] == [1, 320, 321]


def test_trim_silence():
    samples = np.zeros(4000, np.float32)
    samples[1000:2000] = 1
    assert len(acoustics.trim_silence(samples, margin=10)) == 1000 + 10 + 9
    assert len(acoustics.trim_silence(np.zeros(50, np.float32))) == 50


def _pools():
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal(RATE).astype(np.float32) for _ in range(3)]
    return acoustics.make_pools(clips, 2.0, 5)


def test_record_adds_noise_at_the_ratio_it_names():
    pools, speech = _pools(), np.sin(np.arange(RATE) * 0.3).astype(np.float32)
    ratios = []
    for seed in range(200):
        samples, facts = acoustics.record(speech, pools, np.random.default_rng(seed))
        assert np.abs(samples).max() <= 0.981 and np.isfinite(samples).all()
        assert 1.3 <= len(samples) / RATE <= 2.0
        if facts["noise_type"] == "white" and facts["rt60_s"] == 0:
            power = np.abs(np.fft.rfft(samples)) ** 2
            tone = abs(np.fft.rfftfreq(len(samples), 1 / RATE) - 0.3 * RATE / 2 / np.pi) < 20
            ratios.append(10 * np.log10(power[tone].sum() / power[~tone].sum()) - facts["snr_db"])
        expected = acoustics.QUIET_SNR_DB if facts["noise_type"] == "quiet" else acoustics.SNR_DB
        assert expected[0] <= facts["snr_db"] <= expected[1]
    assert len(ratios) > 5 and np.abs(ratios).max() < 1.0


def test_noise_longer_than_its_bed_is_repeated():
    noise = _pools().noise("pink", 5 * RATE, np.random.default_rng(0))
    assert noise.shape == (5 * RATE,) and np.isfinite(noise).all()


def test_record_noise_is_never_silent():
    samples, facts = acoustics.record_noise(1.5, _pools(), np.random.default_rng(3))
    assert len(samples) == round(1.5 * RATE)
    assert np.std(samples) > 0.001 and facts["snr_db"] is None
