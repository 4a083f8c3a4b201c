"""Augmentation of waveforms (speed, room, noise, level, codec) and of features (SpecAugment).

Axes: B batch, T frames, F features. Waveforms are float32 (N,) in [-1, 1]. All random numbers
come from the generator that the caller passes, so the same generator state gives the same bytes.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
import torchaudio.functional

from wekws.dataset.codecs import OPUS_KBPS, opus, telephone
from wekws.dataset.rooms import (
    fast_fft_size,
    mean_power,
    reverberate,
    room_impulse_response,
    shoebox_impulse_response,
)
from wekws.errors import ConfigError

NoisePool = Callable[[int, np.random.Generator], np.ndarray]
"""Function (number of samples, generator) -> that many samples of noise, at any level."""
RoomPool = Callable[[np.random.Generator], np.ndarray]
"""Function (generator) -> a recorded impulse response that begins with the direct sound."""

_EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
# 20 Hz at 16 kHz. The spectrum is flat below it; otherwise most of the power of brown noise would
# be below the audible range.
_LOWEST_SHAPED = 1 / 800
# Of a random microphone: at 16 kHz from 31 Hz to 8 kHz.
_NUM_OCTAVES = 8


@dataclass(frozen=True, kw_only=True)
class SpecAugConfig:
    """SpecAugment on 10 ms frames (Park et al. 2019, arXiv:1904.08779, section 2)."""

    num_t_mask: int = 1
    """Number of time masks per utterance, >= 0."""
    num_f_mask: int = 1
    """Number of frequency masks per utterance, >= 0."""
    max_t: int = 20
    """Widest time mask in frames; widths are uniform from 0."""
    max_f: int = 10
    """Widest frequency mask in mel bins; widths are uniform from 0."""

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        for name in ("num_t_mask", "num_f_mask", "max_t", "max_f"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected >= 0")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training waveforms before features are computed."""

    copies: int = 0
    """Augmented copies in the feature cache, one per epoch in turn; 0: augment in every epoch."""
    seed: int = 0
    """Seed of the cached copies; separate from the seed of a run, so that runs share one cache."""
    speeds: tuple[float, ...] = (1.0,)
    """Factors of speed (and pitch), one drawn per utterance; 0.5 to 2."""
    tempos: tuple[float, ...] = (1.0,)
    """Factors of speaking rate at the same pitch, one drawn per utterance, 0.5 to 2: the filterbank
    takes its frames further apart (fast speech) or closer together."""
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Range of a random gain in dB."""
    noise_prob: float = 0.0
    """Share of utterances to which noise is added, 0 to 1."""
    noise_snr_db: tuple[float, float] = (0.0, 15.0)
    """Range of the signal-to-noise ratio in dB."""
    noise_dir: str | dict[str, float] = ""
    """Folder of noise recordings, one more kind beside noise_kinds; empty: none. Or several with
    their weights, such as {data/noise: 2, data/music: 0.5}; each of noise_kinds weighs 1."""
    noise_kinds: tuple[Literal["white", "pink", "brown", "babble"], ...] = (
        "white",
        "pink",
        "brown",
        "babble",
    )
    """Kinds of noise, drawn with equal probability; babble is made of other utterances."""
    reverb_prob: float = 0.0
    """Share of utterances to which reverberation is added, 0 to 1."""
    reverb_rt60_s: tuple[float, float] = (0.1, 0.6)
    """Range of the reverberation time (60 dB) of simulated rooms in seconds, > 0."""
    room_kinds: tuple[Literal["diffuse", "shoebox"], ...] = ("diffuse",)
    """Kinds of simulated rooms, drawn with equal probability. diffuse: direct sound and noise that
    decays; shoebox: mirror images in a rectangular room."""
    room_distance_m: tuple[float, float] = (0.5, 4.0)
    """Range of the distance from speaker to microphone in shoebox rooms, in metres, > 0."""
    rir_dir: str = ""
    """Folder of recorded room impulse responses, one more kind beside room_kinds; empty: none."""
    level_prob: float = 0.0
    """Share of utterances that are brought to a random level, 0 to 1; the gain then cancels."""
    level_dbfs: tuple[float, float] = (-50.0, -20.0)
    """Range of this level: RMS of the whole utterance in dB relative to full scale, <= 0."""
    microphone_prob: float = 0.0
    """Share of utterances that pass a microphone with a random frequency response, 0 to 1."""
    microphone_db: float = 12.0
    """Largest gain or loss of this response at each octave below half the sample rate, in dB,
    >= 0."""
    telephone_prob: float = 0.0
    """Share of utterances that pass a telephone line (300 to 3400 Hz, G.711 mu-law), 0 to 1."""
    opus_prob: float = 0.0
    """Share of utterances that pass an Opus codec, 0 to 1."""
    opus_kbps: tuple[float, float] = (6.0, 24.0)
    """Range of the bit rate of Opus in kbit/s, 6 to 256."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.copies < 0:
            raise ConfigError(f"copies: found {self.copies}; expected >= 0")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"speeds: found {self.speeds}; expected factors from 0.5 to 2")
        if not self.tempos or not all(0.5 <= tempo <= 2 for tempo in self.tempos):
            raise ConfigError(f"tempos: found {self.tempos}; expected factors from 0.5 to 2")
        for name in (
            "noise_prob", "reverb_prob", "level_prob", "microphone_prob", "telephone_prob",
            "opus_prob",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected 0 to 1")
        for name in (
            "gain_db", "noise_snr_db", "reverb_rt60_s", "room_distance_m", "level_dbfs", "opus_kbps"
        ):  # fmt: skip
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name}: found {low} to {high}; expected the lower first")
        if self.reverb_rt60_s[0] <= 0:
            raise ConfigError(f"reverb_rt60_s: found {self.reverb_rt60_s[0]}; expected > 0")
        if self.room_distance_m[0] <= 0:
            raise ConfigError(f"room_distance_m: found {self.room_distance_m[0]}; expected > 0")
        if self.microphone_db < 0:
            raise ConfigError(f"microphone_db: found {self.microphone_db}; expected >= 0")
        if self.level_dbfs[1] > 0:
            raise ConfigError(f"level_dbfs: found {self.level_dbfs[1]}; expected <= 0")
        if not OPUS_KBPS[0] <= self.opus_kbps[0] <= self.opus_kbps[1] <= OPUS_KBPS[1]:
            raise ConfigError(f"opus_kbps: found {self.opus_kbps}; expected 6 to 256")
        if not all(0 < weight < math.inf for weight in self.noise_dirs.values()):
            raise ConfigError(f"noise_dir: found {self.noise_dir}; expected weights > 0")
        if self.noise_prob > 0 and not self.noise_kinds and not self.noise_dir:
            raise ConfigError("noise_prob > 0 needs noise_kinds or noise_dir")
        if self.reverb_prob > 0 and not self.room_kinds and not self.rir_dir:
            raise ConfigError("reverb_prob > 0 needs room_kinds or rir_dir")

    @property
    def is_active(self) -> bool:
        """Whether these settings can change any features."""
        return (
            self.speeds != (1.0,)
            or self.tempos != (1.0,)
            or self.gain_db != (0.0, 0.0)
            or self.noise_prob > 0
            or self.reverb_prob > 0
            or self.level_prob > 0
            or self.microphone_prob > 0
            or self.telephone_prob > 0
            or self.opus_prob > 0
        )

    @property
    def noise_dirs(self) -> dict[str, float]:
        """Weight by folder of noise recordings."""
        if isinstance(self.noise_dir, str):
            return {self.noise_dir: 1.0} if self.noise_dir else {}
        return self.noise_dir

    @property
    def folders(self) -> list[str]:
        """Folders of recordings that are used."""
        rooms = [self.rir_dir] if self.reverb_prob > 0 and self.rir_dir else []
        return [*rooms, *(self.noise_dirs if self.noise_prob > 0 else ())]


def augment(
    samples: np.ndarray,
    config: AugmentConfig,
    *,
    sample_rate_hz: int,
    rng: np.random.Generator,
    babble_pool: NoisePool | None = None,
    recorded_pools: Mapping[str, NoisePool] | None = None,
    room_pool: RoomPool | None = None,
) -> np.ndarray:
    """Return one augmented version: speed, room, noise, microphone, gain, level, telephone, Opus.

    babble_pool: source of that kind of noise; None: this kind is not drawn.
    recorded_pools: source of noise by folder of config.noise_dir. room_pool: source of recorded
    rooms. A folder without a source is not drawn.
    Only the speed changes the length. It is the first thing drawn, so that ``draw_speed`` alone
    gives it too.
    """
    samples = change_speed(samples, draw_speed(config, rng), sample_rate_hz)
    # What is off draws no random numbers, except where the first version did: the same settings
    # then give the same bytes.
    if rng.random() < config.reverb_prob:
        samples = _in_a_room(samples, config, sample_rate_hz, rng, room_pool)
    if rng.random() < config.noise_prob:
        noise = _draw_noise(len(samples), config, rng, babble_pool, recorded_pools or {})
        if noise is not None:
            samples = mix_at_snr(samples, noise, rng.uniform(*config.noise_snr_db))
    if config.microphone_prob > 0 and rng.random() < config.microphone_prob:
        samples = through_microphone(samples, config.microphone_db, rng)
    gain = 10 ** (rng.uniform(*config.gain_db) / 20)
    samples = (samples * np.float32(gain)).astype(np.float32, copy=False)
    if config.level_prob > 0 and rng.random() < config.level_prob:
        samples = at_level(samples, rng.uniform(*config.level_dbfs))
    if config.telephone_prob > 0 and rng.random() < config.telephone_prob:
        samples = telephone(samples, sample_rate_hz)
    if config.opus_prob > 0 and rng.random() < config.opus_prob:
        samples = opus(samples, sample_rate_hz, rng.uniform(*config.opus_kbps))
    return samples


def draw_speed(config: AugmentConfig, rng: np.random.Generator) -> float:
    """Return the speed of an augmented version, the first random number of ``augment``."""
    return config.speeds[rng.integers(len(config.speeds))]


def _in_a_room(
    samples: np.ndarray,
    config: AugmentConfig,
    sample_rate_hz: int,
    rng: np.random.Generator,
    room_pool: RoomPool | None,
) -> np.ndarray:
    """Return the samples in a room of a kind that is drawn; unchanged if there is no kind."""
    kinds = [*config.room_kinds, *(["recorded"] if room_pool is not None else [])]
    if not kinds:
        return samples
    kind = kinds[rng.integers(len(kinds))] if len(kinds) > 1 else kinds[0]
    if kind == "recorded" and room_pool is not None:
        return reverberate(samples, room_pool(rng))
    rt60_s = rng.uniform(*config.reverb_rt60_s)
    if kind == "shoebox":
        distance_m = rng.uniform(*config.room_distance_m)
        rir = shoebox_impulse_response(rt60_s, distance_m, sample_rate_hz, rng)
    else:
        rir = room_impulse_response(rt60_s, sample_rate_hz, rng)
    return reverberate(samples, rir)


def _draw_noise(
    num_samples: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    babble_pool: NoisePool | None,
    recorded_pools: Mapping[str, NoisePool],
) -> np.ndarray | None:
    """Return noise of a kind that is drawn; None if there is no kind."""
    sources: list[NoisePool] = []
    for kind in config.noise_kinds:
        if kind != "babble":
            sources.append(functools.partial(_coloured_source, _EXPONENTS[kind]))
        elif babble_pool is not None:
            sources.append(babble_pool)
    weights = [1.0] * len(sources)
    for folder, weight in config.noise_dirs.items():
        if folder in recorded_pools:
            sources.append(recorded_pools[folder])
            weights.append(weight)
    if not sources:
        return None
    if set(weights) == {1.0}:
        return sources[rng.integers(len(sources))](num_samples, rng)
    shares = np.array(weights) / sum(weights)
    return sources[rng.choice(len(sources), p=shares)](num_samples, rng)


def through_microphone(samples: np.ndarray, max_db: float, rng: np.random.Generator) -> np.ndarray:
    """Return samples (N,) with a random frequency response, as microphones differ in it.

    The gain at half the sample rate and at eight octaves below it is uniform in +-max_db, and
    linear in dB over the logarithm of the frequency between them; below the lowest it is constant.
    """
    size = fast_fft_size(len(samples))
    octaves = np.arange(-_NUM_OCTAVES, 1)
    gains_db = rng.uniform(-max_db, max_db, len(octaves))
    frequency = np.maximum(np.fft.rfftfreq(size) * 2, 2.0**-_NUM_OCTAVES)
    response = 10 ** (np.interp(np.log2(frequency), octaves, gains_db) / 20)
    spectrum = np.fft.rfft(samples, size) * response.astype(np.float32)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def at_level(samples: np.ndarray, dbfs: float) -> np.ndarray:
    """Return samples (N,) with an RMS of ``dbfs`` relative to full scale (1.0).

    Where that would clip, the highest peak is at full scale instead; silence is unchanged.
    """
    power = mean_power(samples)
    if power == 0:
        return samples
    scale = min(10 ** (dbfs / 20) / math.sqrt(power), 1 / float(np.abs(samples).max()))
    return (samples * np.float32(scale)).astype(np.float32)


def _coloured_source(exponent: float, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    return coloured_noise(num_samples, exponent, rng)


def coloured_noise(num_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise with power ~ 1 / frequency^exponent: 0 white, 1 pink, 2 brown.

    Returns: float32 (num_samples,) with RMS 1 and, for exponent > 0, mean 0; the spectrum is flat
    below 1/800 of the sample rate.
    """
    if exponent == 0:
        return _unit_rms(rng.standard_normal(num_samples, dtype=np.float32))
    size = fast_fft_size(num_samples)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    shaped = np.fft.irfft(spectrum * _spectral_shape(size, exponent), size)[:num_samples]
    return _unit_rms((shaped - shaped.mean()).astype(np.float32))


@functools.lru_cache(maxsize=64)
def _spectral_shape(size: int, exponent: float) -> np.ndarray:
    frequency = np.maximum(np.fft.rfftfreq(size), _LOWEST_SHAPED)
    return (frequency ** (-exponent / 2)).astype(np.float32)


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return speech plus noise, scaled so that the ratio of their mean powers is ``snr_db``.

    Noise of another length is repeated or cut. If speech or noise is silent there is no such
    ratio, and the speech is returned unchanged.
    """
    noise = np.resize(noise, len(speech)) if len(noise) != len(speech) else noise
    speech_power, noise_power = mean_power(speech), mean_power(noise)
    if speech_power == 0 or noise_power == 0:
        return speech
    scale = math.sqrt(speech_power / noise_power) * 10 ** (-snr_db / 20)
    return speech + noise * np.float32(scale)


def change_speed(samples: np.ndarray, factor: float, sample_rate_hz: int) -> np.ndarray:
    """Return ``samples`` played ``factor`` times as fast, with the pitch changed too.

    The new length is ceil(N / ratio), see ``speed_ratio``.
    """
    ratio = speed_ratio(factor)
    if ratio == 1:
        return samples
    faster = torchaudio.functional.resample(
        torch.from_numpy(np.ascontiguousarray(samples)), ratio.numerator, ratio.denominator
    )
    return faster.numpy()


def speed_ratio(factor: float) -> Fraction:
    """Return the speed in use: a ratio of whole numbers whose denominator is at most 100."""
    return Fraction(factor).limit_denominator(100)


def spec_augment(
    feats: torch.Tensor,
    lengths: torch.Tensor,
    *,
    config: SpecAugConfig,
    generator: torch.Generator,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Return features with random spans of frames and of mel bins replaced by ``fill``.

    feats: (B, T, F) before context expansion, padded with zeros.
    lengths: (B,) valid frames on the CPU; masks stay inside them.
    generator: on the CPU; the few random numbers are drawn there whatever the device of the
    features, so that no step waits for the device.
    fill: (F,) neutral value, the CMVN mean; 0 is not neutral for log-mel energies.
    """
    num_frames, num_bins = feats.shape[1:]
    frame_counts = lengths.float()
    bin_counts = torch.full_like(frame_counts, num_bins)
    time = _span_mask(frame_counts, config.num_t_mask, config.max_t, num_frames, generator)
    band = _span_mask(bin_counts, config.num_f_mask, config.max_f, num_bins, generator)
    # Masks cover a few per cent of the cells: writing by index costs a tenth of torch.where.
    masked, fill = feats.clone(), fill.to(feats)
    masked[_indices(time, feats.device)] = fill
    utterance, mel_bin = _indices(band, feats.device)
    num_valid = lengths.to(feats.device, non_blocking=True)
    valid = torch.arange(num_frames, device=feats.device) < num_valid[:, None]
    masked[utterance, :, mel_bin] = fill[mel_bin, None] * valid[utterance]
    return masked


def _span_mask(
    counts: torch.Tensor, num_masks: int, max_width: int, size: int, generator: torch.Generator
) -> torch.Tensor:
    """Return the union of num_masks random spans inside the first counts[b] cells, (B, size)."""
    draws = torch.rand(2, len(counts), num_masks, generator=generator)
    limit = counts[:, None].clamp(max=max_width)
    width = (draws[0] * (limit + 1)).floor()
    start = (draws[1] * (counts[:, None] - width + 1)).floor()
    cells = torch.arange(size)
    inside = (cells >= start[..., None]) & (cells < (start + width)[..., None])
    return inside.any(dim=1)


def _indices(mask: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    return tuple(index.to(device, non_blocking=True) for index in mask.nonzero(as_tuple=True))


def _unit_rms(samples: np.ndarray) -> np.ndarray:
    return samples / np.float32(max(math.sqrt(mean_power(samples)), 1e-12))
