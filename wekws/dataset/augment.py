"""Augmentation of waveforms (speed, room, noise, level, codec) and of features (SpecAugment).

Axes: B batch, T frames, F features. Waveforms are float32 (N,) in [-1, 1]. All random numbers
come from the generator that the caller passes, so the same generator state gives the same bytes.
"""

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from wekws.dataset.codecs import opus, telephone
from wekws.dataset.feature_view import (
    AugmentConfig,
    NoiseKind,
    SpecAugConfig,
    draw_speed,
    speed_ratio,
)
from wekws.dataset.resample import Resampler
from wekws.dataset.rooms import (
    fast_fft_size,
    mean_power,
    reverberate,
    room_impulse_response,
    shoebox_impulse_response,
)

NoisePool = Callable[[int, np.random.Generator], np.ndarray]
"""Function (number of samples, generator) -> that many samples of noise, at any level."""
RoomPool = Callable[[np.random.Generator], np.ndarray]
"""Function (generator) -> a recorded impulse response that begins with the direct sound."""

_EXPONENTS: dict[NoiseKind, float] = {"white": 0.0, "pink": 1.0, "brown": 2.0}
# 20 Hz at 16 kHz. The spectrum is flat below it; otherwise most of the power of brown noise would
# be below the audible range.
_LOWEST_SHAPED = 1 / 800
# Of a random microphone: at 16 kHz from 31 Hz to 8 kHz.
_NUM_OCTAVES = 8


def augment(
    samples: np.ndarray,
    config: AugmentConfig,
    *,
    sample_rate_hz: int,
    rng: np.random.Generator,
    pools: Mapping[NoiseKind, NoisePool] | None = None,
    recorded_pools: Mapping[str, NoisePool] | None = None,
    room_pool: RoomPool | None = None,
) -> np.ndarray:
    """Return one augmented version: speed, room, noise, microphone, gain, level, telephone, Opus.

    pools: sources of babble and of background; recorded_pools: source of noise by folder of
    config.noise_dir; room_pool: source of recorded rooms. What has no source is not drawn.
    Only the speed changes the length. It is the first thing drawn, so that ``draw_speed`` alone
    gives it too.
    """
    samples = change_speed(samples, draw_speed(config, rng), sample_rate_hz)
    # What is off draws no random numbers, except where the first version did: the same settings
    # then give the same bytes.
    if rng.random() < config.reverb_prob:
        samples = _in_a_room(samples, config, sample_rate_hz, rng, room_pool)
    if rng.random() < config.noise_prob:
        noise = _draw_noise(len(samples), config, rng, pools or {}, recorded_pools or {})
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
    pools: Mapping[NoiseKind, NoisePool],
    recorded_pools: Mapping[str, NoisePool],
) -> np.ndarray | None:
    """Return noise of a kind that is drawn; None if there is no kind."""
    sources: list[NoisePool] = []
    weights = []
    for kind, weight in config.noise_weights.items():
        if kind in _EXPONENTS:
            sources.append(functools.partial(_coloured_source, _EXPONENTS[kind]))
        elif kind in pools:
            sources.append(pools[kind])
        else:
            continue
        weights.append(weight)
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
    resampler = Resampler(ratio.numerator, ratio.denominator)
    return np.concatenate([resampler(samples), resampler.flush()])


def spec_augment(
    feats: torch.Tensor,
    lengths: torch.Tensor,
    *,
    config: SpecAugConfig,
    generator: torch.Generator,
    fill: torch.Tensor,
    places: torch.Tensor | None = None,
    num_places: int = 0,
) -> torch.Tensor:
    """Return features with random spans of frames and of mel bins replaced by ``fill``.

    feats: (B, T, F) before context expansion, padded with zeros.
    lengths: (B,) valid frames on the CPU; masks stay inside them.
    generator: on the CPU; the few random numbers are drawn there whatever the device of the
    features, so that no step waits for the device.
    fill: (F,) neutral value, the CMVN mean; 0 is not neutral for log-mel energies.
    places: (B,) on the CPU, places of these utterances among the ``num_places`` of a step that
    several processes share. Random numbers are drawn for the whole step, so that the masks of an
    utterance do not depend on the number of processes. None: the utterances are the step.
    """
    num_frames, num_bins = feats.shape[1:]
    frame_counts = lengths.float()
    bin_counts = torch.full_like(frame_counts, num_bins)
    if places is None:
        places, num_places = torch.arange(len(lengths)), len(lengths)
    draws = [
        torch.rand(2, num_places, num_masks, generator=generator)[:, places]
        for num_masks in (config.num_t_mask, config.num_f_mask)
    ]
    time = _span_mask(frame_counts, draws[0], config.max_t, num_frames)
    band = _span_mask(bin_counts, draws[1], config.max_f, num_bins)
    # Masks cover a few per cent of the cells: writing by index costs a tenth of torch.where.
    masked, fill = feats.clone(), fill.to(feats)
    masked[_indices(time, feats.device)] = fill
    utterance, mel_bin = _indices(band, feats.device)
    num_valid = lengths.to(feats.device, non_blocking=True)
    valid = torch.arange(num_frames, device=feats.device) < num_valid[:, None]
    masked[utterance, :, mel_bin] = fill[mel_bin, None] * valid[utterance]
    return masked


def _span_mask(
    counts: torch.Tensor, draws: torch.Tensor, max_width: int, size: int
) -> torch.Tensor:
    """Return the union of spans inside the first counts[b] cells, (B, size).

    draws: (2, B, number of spans) uniform in 0 to 1, for the width and the start of each span.
    """
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
