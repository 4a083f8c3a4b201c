"""Augmentation of waveforms (speed, room, noise, gain) and of features (SpecAugment).

Axes: B batch, T frames, F features. Waveforms are float32 (N,) in [-1, 1]. Every draw comes
from the generator that the caller hands in, so the same generator state gives the same bytes.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
import torchaudio.functional

from wekws.errors import ConfigError

NoisePool = Callable[[int, np.random.Generator], np.ndarray]
"""(number of samples, generator) -> that many samples of noise, at any level."""

_EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
# 20 Hz at 16 kHz: below, the spectrum is flat, or brown noise would spend its power unheard.
_LOWEST_SHAPED = 1 / 800


@dataclass(frozen=True, kw_only=True)
class SpecAugConfig:
    """SpecAugment on 10 ms frames (Park et al. 2019, arXiv:1904.08779, section 2)."""

    num_t_mask: int = 1
    """Masks along time for each utterance, >= 0."""
    num_f_mask: int = 1
    """Masks along mel bins for each utterance, >= 0."""
    max_t: int = 20
    """Widest time mask, frames; widths are uniform from 0."""
    max_f: int = 10
    """Widest frequency mask, mel bins; widths are uniform from 0."""

    def __post_init__(self):
        """Refuse negative numbers."""
        for name in ("num_t_mask", "num_f_mask", "max_t", "max_f"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected >= 0")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to training waveforms before features are taken."""

    copies: int = 0
    """Augmented copies kept in the feature cache, used in turn; 0: augmented anew each epoch."""
    seed: int = 0
    """Seed of the cached copies, apart from the run's, so that runs share one cache."""
    speeds: tuple[float, ...] = (1.0,)
    """Factors of speed (and pitch), one drawn for each utterance; 0.5 to 2."""
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Range of a random gain, dB."""
    noise_prob: float = 0.0
    """Share of utterances that get noise, 0 to 1."""
    noise_snr_db: tuple[float, float] = (0.0, 15.0)
    """Range of the signal-to-noise ratio, dB."""
    noise_dir: str = ""
    """Folder of noise recordings that joins the kinds below; empty: none."""
    noise_kinds: tuple[Literal["white", "pink", "brown", "babble"], ...] = (
        "white",
        "pink",
        "brown",
        "babble",
    )
    """Kinds of noise, drawn with equal chances; babble is other utterances of the list."""
    reverb_prob: float = 0.0
    """Share of utterances that get a room, 0 to 1."""
    reverb_rt60_s: tuple[float, float] = (0.1, 0.6)
    """Range of the reverberation time (60 dB), seconds."""

    def __post_init__(self):
        """Refuse what cannot be drawn from."""
        if self.copies < 0:
            raise ConfigError(f"copies: found {self.copies}; expected >= 0")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"speeds: found {self.speeds}; expected factors from 0.5 to 2")
        for name in ("noise_prob", "reverb_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected 0 to 1")
        for name in ("gain_db", "noise_snr_db", "reverb_rt60_s"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name}: found {low} to {high}; expected the lower first")
        if self.reverb_rt60_s[0] <= 0:
            raise ConfigError(f"reverb_rt60_s: found {self.reverb_rt60_s[0]}; expected > 0")
        if self.noise_prob > 0 and not self.noise_kinds and not self.noise_dir:
            raise ConfigError("noise_prob > 0 needs noise_kinds or noise_dir")

    @property
    def is_active(self) -> bool:
        """Whether any waveform can come out changed."""
        return (
            self.speeds != (1.0,)
            or self.gain_db != (0.0, 0.0)
            or self.noise_prob > 0
            or self.reverb_prob > 0
        )


def augment(
    samples: np.ndarray,
    sample_rate_hz: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    babble_pool: NoisePool | None = None,
    recorded_pool: NoisePool | None = None,
) -> np.ndarray:
    """Return one augmented view: speed, then room, then noise, then gain.

    babble_pool, recorded_pool: where that kind of noise comes from; a kind without a pool is
    not drawn. The length changes with the speed alone.
    """
    speed = config.speeds[rng.integers(len(config.speeds))]
    samples = change_speed(samples, speed, sample_rate_hz)
    if rng.random() < config.reverb_prob:
        rir = room_impulse_response(rng.uniform(*config.reverb_rt60_s), sample_rate_hz, rng)
        samples = reverberate(samples, rir)
    if rng.random() < config.noise_prob:
        noise = _draw_noise(len(samples), config, rng, babble_pool, recorded_pool)
        if noise is not None:
            samples = mix_at_snr(samples, noise, rng.uniform(*config.noise_snr_db))
    gain = 10 ** (rng.uniform(*config.gain_db) / 20)
    return (samples * np.float32(gain)).astype(np.float32, copy=False)


def _draw_noise(num_samples, config, rng, babble_pool, recorded_pool) -> np.ndarray | None:
    kinds = [kind for kind in config.noise_kinds if kind != "babble" or babble_pool]
    if recorded_pool:
        kinds.append("recorded")
    if not kinds:
        return None
    kind = kinds[rng.integers(len(kinds))]
    if kind == "babble":
        return babble_pool(num_samples, rng)
    if kind == "recorded":
        return recorded_pool(num_samples, rng)
    return coloured_noise(num_samples, _EXPONENTS[kind], rng)


def coloured_noise(num_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise with power ~ 1 / frequency^exponent: 0 white, 1 pink, 2 brown.

    Returns: float32 (num_samples,), RMS 1, no constant part for exponent > 0; the spectrum is
    flat below 1/800 of the sample rate.
    """
    if exponent == 0:
        return _unit_rms(rng.standard_normal(num_samples, dtype=np.float32))
    size = _fast_fft_size(num_samples)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    shaped = np.fft.irfft(spectrum * _spectral_shape(size, exponent), size)[:num_samples]
    return _unit_rms((shaped - shaped.mean()).astype(np.float32))


@functools.lru_cache(maxsize=64)
def _spectral_shape(size: int, exponent: float) -> np.ndarray:
    frequency = np.maximum(np.fft.rfftfreq(size), _LOWEST_SHAPED)
    return (frequency ** (-exponent / 2)).astype(np.float32)


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return speech plus noise scaled so that mean power over the whole is ``snr_db`` apart.

    Noise of another length is repeated or cut. Silent speech or silent noise leaves the
    speech as it is, for no ratio exists then.
    """
    noise = np.resize(noise, len(speech)) if len(noise) != len(speech) else noise
    speech_power, noise_power = _power(speech), _power(noise)
    if speech_power == 0 or noise_power == 0:
        return speech
    scale = math.sqrt(speech_power / noise_power) * 10 ** (-snr_db / 20)
    return speech + noise * np.float32(scale)


def room_impulse_response(
    rt60_s: float, sample_rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the impulse response of a random room: direct sound, then a diffuse tail.

    The tail is Gaussian noise under an exponential that falls 60 dB in ``rt60_s``, 1 to 5 ms
    after the direct sound and -3 to 9 dB below it in energy; the direct sound is sample 0 and
    so adds no delay.
    Source: Polack's statistical model, e.g. Jot, Cerveau and Warusfel 1997 (AES 103), eq. 1.
    """
    gap = round(rng.uniform(0.001, 0.005) * sample_rate_hz)
    num_tail = max(1, round(rt60_s * sample_rate_hz))
    decay = np.exp(np.arange(num_tail) * (-math.log(1000) / (rt60_s * sample_rate_hz)))
    tail = rng.standard_normal(num_tail) * decay
    tail *= 10 ** (-rng.uniform(-3, 9) / 20) / max(np.linalg.norm(tail), 1e-12)
    return np.concatenate(([1.0], np.zeros(gap), tail)).astype(np.float32)


def reverberate(speech: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """Return ``speech`` convolved with ``rir``, cut to its own length, its power unchanged."""
    size = _fast_fft_size(len(speech) + len(rir) - 1)
    product = np.fft.rfft(speech, size) * np.fft.rfft(rir, size)
    wet = np.fft.irfft(product, size)[: len(speech)]
    wet_power = _power(wet)
    scale = math.sqrt(_power(speech) / wet_power) if wet_power > 0 else 0.0
    return (wet * scale).astype(np.float32)


def change_speed(samples: np.ndarray, factor: float, sample_rate_hz: int) -> np.ndarray:
    """Return ``samples`` played ``factor`` times as fast, pitch and all, at the same rate.

    The new length is ceil(N / factor). Resampling by a ratio of whole numbers up to 100.
    """
    ratio = Fraction(factor).limit_denominator(100)
    if ratio == 1:
        return samples
    faster = torchaudio.functional.resample(
        torch.from_numpy(np.ascontiguousarray(samples)), ratio.numerator, ratio.denominator
    )
    return faster.numpy()


def spec_augment(
    feats: torch.Tensor,
    lengths: torch.Tensor,
    config: SpecAugConfig,
    generator: torch.Generator,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Return features with random stretches of time and bands of mel bins made neutral.

    feats: (B, T, F) before context expansion, padded with zeros.
    lengths: (B,), masks stay inside valid frames; like generator on the CPU, where the few
    numbers are drawn whatever device holds the features, so that nothing waits for it.
    fill: (F,), the neutral value (the CMVN mean); 0 is no neutral log-mel energy.
    """
    num_frames, num_bins = feats.shape[1:]
    frame_counts = lengths.float()
    bin_counts = torch.full_like(frame_counts, num_bins)
    time = _span_mask(frame_counts, config.num_t_mask, config.max_t, num_frames, generator)
    band = _span_mask(bin_counts, config.num_f_mask, config.max_f, num_bins, generator)
    # Masks cover a few per cent: writing those cells by index costs a tenth of torch.where.
    masked, fill = feats.clone(), fill.to(feats)
    masked[_indices(time, feats.device)] = fill
    utterance, mel_bin = _indices(band, feats.device)
    num_valid = lengths.to(feats.device, non_blocking=True)
    valid = torch.arange(num_frames, device=feats.device) < num_valid[:, None]
    masked[utterance, :, mel_bin] = fill[mel_bin, None] * valid[utterance]
    return masked


def _span_mask(counts, num_masks, max_width, size, generator) -> torch.Tensor:
    """(B, size) bool: the union of num_masks random spans inside the first counts[b] cells."""
    draws = torch.rand(2, len(counts), num_masks, generator=generator)
    limit = counts[:, None].clamp(max=max_width)
    width = (draws[0] * (limit + 1)).floor()
    start = (draws[1] * (counts[:, None] - width + 1)).floor()
    cells = torch.arange(size)
    inside = (cells >= start[..., None]) & (cells < (start + width)[..., None])
    return inside.any(dim=1)


def _indices(mask: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    return tuple(index.to(device, non_blocking=True) for index in mask.nonzero(as_tuple=True))


def _power(samples: np.ndarray) -> float:
    if len(samples) == 0:
        return 0.0
    return float(np.mean(np.square(samples), dtype=np.float64))


def _unit_rms(samples: np.ndarray) -> np.ndarray:
    return samples / np.float32(max(math.sqrt(_power(samples)), 1e-12))


def _fast_fft_size(minimum: int) -> int:
    """Return a size >= minimum with no prime factor above 5."""
    return min(m << max(0, math.ceil(math.log2(minimum / m))) for m in (1, 3, 5, 9, 15))
