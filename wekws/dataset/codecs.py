"""Speech codecs: audio as it arrives from a telephone, or from an Opus connection.

Waveforms are float32 (N,) in [-1, 1]; the length is kept, and there is no delay.
"""

import functools
import io
import math

import numpy as np
import soundfile

OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
"""Sample rates that Opus takes."""
OPUS_KBPS = (6.0, 256.0)
"""Bit rates that libsndfile can ask for."""

_TELEPHONE_RATE_HZ = 8000
_TELEPHONE_BAND_HZ = (200.0, 300.0, 3400.0, 3800.0)  # silent, full, full, silent
_MU_LAW_BIAS, _MU_LAW_CLIP = 132, 32635


def telephone(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return audio as a telephone sends it: 300 to 3400 Hz, 8 kHz, 8-bit mu-law (ITU-T G.711).

    sample_rate_hz: >= 8000.
    """
    divisor = math.gcd(sample_rate_hz, _TELEPHONE_RATE_HZ)
    up, down = sample_rate_hz // divisor, _TELEPHONE_RATE_HZ // divisor
    # Silence behind the end, 25 ms at least, keeps the filter's echo away from the start.
    num_blocks = 2 * math.ceil((len(samples) + sample_rate_hz // 40) / (2 * up))
    spectrum = np.fft.rfft(samples, num_blocks * up)
    num_bins = num_blocks * down // 2 + 1
    frequency_hz = np.arange(num_bins) * (sample_rate_hz / (num_blocks * up))
    gain = np.interp(frequency_hz, _TELEPHONE_BAND_HZ, (0.0, 1.0, 1.0, 0.0))
    narrow = np.fft.irfft(spectrum[:num_bins] * gain, num_blocks * down) * (down / up)
    coded = mu_law_round_trip(np.clip(np.round(narrow * 32768), -32768, 32767).astype(np.int32))
    wide = np.fft.irfft(np.fft.rfft(coded / 32768), num_blocks * up) * (up / down)
    return wide[: len(samples)].astype(np.float32)


def mu_law_round_trip(samples: np.ndarray) -> np.ndarray:
    """Return 16-bit samples (N,) after coding to 8 bits and back, as int32.

    Source: ITU-T G.711, mu-law, in the common form with a bias of 132 for 16-bit samples: sign,
    3 bits for the segment and 4 bits for the place in it; the value is the middle of its step.
    """
    magnitude = np.minimum(np.abs(samples), _MU_LAW_CLIP) + _MU_LAW_BIAS
    segment = np.frexp(magnitude.astype(np.float64))[1] - 8  # 132 is in segment 0
    place = (magnitude >> (segment + 3)) & 15
    decoded = ((2 * place + 33) << (segment + 2)) - _MU_LAW_BIAS
    return np.where(samples < 0, -decoded, decoded).astype(np.int32)


def opus(samples: np.ndarray, sample_rate_hz: int, kbps: float) -> np.ndarray:
    """Return audio after Opus at about ``kbps`` kbit/s.

    sample_rate_hz: one of OPUS_RATES_HZ. kbps: within OPUS_KBPS.
    """
    low, high = OPUS_KBPS
    coded = io.BytesIO()
    # libsndfile turns the compression level into a bit rate: 0 is 256, 1 is 6 kbit/s.
    level = (high - kbps) / (high - low)
    soundfile.write(
        coded, samples, sample_rate_hz, format="OGG", subtype="OPUS", compression_level=level
    )
    coded.seek(0)
    return soundfile.read(coded, dtype="float32")[0]


@functools.cache
def opus_is_available() -> bool:
    """Return whether this machine's libsndfile writes and reads Opus."""
    try:
        return len(opus(np.zeros(1600, np.float32), 16000, 16.0)) == 1600
    except (TypeError, ValueError, soundfile.LibsndfileError):
        return False
