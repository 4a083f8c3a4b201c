import io

import numpy as np
import pytest
import soundfile

from wekws.dataset import codecs
from wekws.dataset.codecs import mu_law_round_trip, opus, opus_is_available, telephone

RATE = 16000
needs_opus = pytest.mark.skipif(not opus_is_available(), reason="libsndfile without Opus")


def tones(*frequencies_hz, num_samples=RATE, rate=RATE):
    time_s = np.arange(num_samples) / rate
    return sum(0.1 * np.sin(2 * np.pi * f * time_s) for f in frequencies_hz).astype(np.float32)


def level_at(samples, frequency_hz, rate=RATE):
    """Amplitude of a tone of a whole number of periods."""
    spectrum = np.abs(np.fft.rfft(samples)) / len(samples) * 2
    return spectrum[round(frequency_hz * len(samples) / rate)]


def test_mu_law_by_hand():
    # 1000 + 132 = 1132 = 0b10001101100: segment 3, place (1132 >> 6) & 15 = 1;
    # back: ((2 * 1 + 33) << 5) - 132 = 988. 4 + 132 = 136: segment 0, place 1: 140 - 132 = 8.
    samples = np.array([0, 3, 4, 1000, -1000, 32767, -32768])
    assert mu_law_round_trip(samples).tolist() == [0, 0, 8, 988, -988, 32124, -32124]


def test_mu_law_is_that_of_libsndfile():
    samples = np.arange(-32768, 32768).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 8000, format="WAV", subtype="ULAW")
    stream.seek(0)
    expected = soundfile.read(stream, dtype="int16")[0]
    assert np.array_equal(mu_law_round_trip(samples.astype(np.int32)), expected)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_telephone_keeps_its_band_only(rate):
    sent = tones(100, 1000, 3000, num_samples=rate, rate=rate)
    received = telephone(sent, rate)
    assert received.shape == sent.shape and received.dtype == np.float32
    assert level_at(received, 1000, rate) == pytest.approx(0.1, rel=0.05)
    assert level_at(received, 3000, rate) == pytest.approx(0.1, rel=0.05)
    assert level_at(received, 100, rate) < 0.002
    if rate > 8000:
        high = telephone(tones(1000, 5000, num_samples=rate, rate=rate), rate)
        assert level_at(high, 5000, rate) < 0.002


def test_telephone_does_not_delay():
    sent = tones(500, 1200)[: RATE // 2] * np.hanning(RATE // 2).astype(np.float32)
    received = telephone(sent, RATE)
    assert np.argmax(np.correlate(received, sent, "full")) == len(sent) - 1
    noise = received - sent
    # Mu-law with 8 bits has a signal-to-noise ratio of about 37 dB over its range.
    assert 30 < 10 * np.log10(np.mean(sent**2) / np.mean(noise**2)) < 45


@pytest.mark.parametrize("num_samples", [1, 7, 400, 16001])
def test_any_length(num_samples):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    coded = [telephone(noise, RATE)] + ([opus(noise, RATE, 12.0)] if opus_is_available() else [])
    for received in coded:
        assert received.shape == noise.shape and np.isfinite(received).all()
    assert np.abs(telephone(np.zeros(num_samples, np.float32), RATE)).max() == 0


def test_telephone_overload_saturates():
    loud = 40 * tones(1000)
    received = telephone(loud, RATE)
    assert np.isfinite(received).all() and np.abs(received).max() < 1.5


@needs_opus
def test_opus_keeps_speech_and_its_place():
    rng = np.random.default_rng(0)
    envelope = np.repeat(rng.uniform(0, 1, 20), RATE // 20).astype(np.float32)
    sent = envelope * tones(200, 400, 800)
    errors = []
    for kbps in (6.0, 12.0, 64.0):
        received = opus(sent, RATE, kbps)
        assert received.shape == sent.shape and received.dtype == np.float32
        lag = np.argmax(np.correlate(received, sent, "full")) - (len(sent) - 1)
        assert abs(lag) <= 2
        errors.append(np.mean((received - sent) ** 2))
        assert np.array_equal(received, opus(sent, RATE, kbps))
    assert errors[2] < errors[0]


def test_without_opus_it_is_not_available(monkeypatch):
    def write(*arguments, **options):
        raise ValueError("Invalid combination of format, subtype and endian")

    codecs.opus_is_available.cache_clear()
    monkeypatch.setattr(codecs.soundfile, "write", write)
    try:
        assert not codecs.opus_is_available()
    finally:
        codecs.opus_is_available.cache_clear()
