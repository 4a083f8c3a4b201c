"""Signal processing from dry synthesised speech to a recording: resampling, room, noise, level.

Each split has its own pools of rooms and noises, made once. A random crop of a long noise bed is as
good as fresh noise and costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch

from wekws.dataset.augment import coloured_noise, mix_at_snr
from wekws.dataset.rooms import reverberate, room_impulse_response

SAMPLE_RATE_HZ = 16000
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
NOISE_TYPES = (*COLOURS, "babble")
SNR_DB = (0.0, 15.0)
QUIET_SNR_DB = (25.0, 40.0)
QUIET_SHARE = 0.1
REVERB_SHARE = 0.5
RT60_S = (0.1, 0.6)
LEVEL_DB = (-36.0, -16.0)  # RMS level of an utterance, relative to full scale
NUM_ROOMS = 48
NUM_TALKERS = 6
HALF_TAPS = 24  # half the length of the resampling filter, in input samples


class Resampler:
    """Rational resampling as one matrix product per block.

    One fixed matrix (all phases of a windowed-sinc low-pass) maps a block of `down` input samples
    to `up` output samples. A whole utterance is one product of a strided view and this matrix.
    """

    def __init__(self, source_hz: int, target_hz: int) -> None:
        """Build the matrix for a pair of sample rates."""
        divisor = math.gcd(source_hz, target_hz)
        self.up, self.down = target_hz // divisor, source_hz // divisor
        cutoff = 0.94 * min(1.0, self.up / self.down)
        position = np.arange(self.up) * self.down / self.up
        taps = np.arange(-HALF_TAPS, self.down + HALF_TAPS)
        distance = taps[:, None] - position[None, :]
        hann = 0.5 + 0.5 * np.cos(np.pi * distance / HALF_TAPS)
        window = np.where(abs(distance) <= HALF_TAPS, hann, 0)
        matrix = (cutoff * np.sinc(cutoff * distance) * window).astype(np.float32)
        # The product runs in torch, because numpy's threads cannot be limited from here.
        self._matrix = torch.from_numpy(matrix)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Resample (N,) float32; the result has ceil(N * up / down) samples."""
        num_blocks = -(-len(samples) // self.down)
        padded = np.zeros(num_blocks * self.down + 2 * HALF_TAPS, np.float32)
        padded[HALF_TAPS : HALF_TAPS + len(samples)] = samples
        windows = torch.from_numpy(padded).unfold(0, len(self._matrix), self.down)
        length = -(-len(samples) * self.up // self.down)
        return (windows @ self._matrix).ravel()[:length].numpy()


def trim_silence(samples: np.ndarray, threshold: float = 0.01, margin: int = 160) -> np.ndarray:
    """Cut silence at both ends.

    samples: (N,). threshold: share of the peak below which a sample is silence. margin: number of
    silent samples to keep at each end.
    """
    loud = np.flatnonzero(np.abs(samples) > threshold * np.abs(samples).max(initial=0))
    if len(loud) == 0:
        return samples
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


def babble_bed(
    clips: Sequence[np.ndarray], num_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Babble noise: several talkers at once, each an endless string of clips at equal level.

    Returns: (num_samples,) with RMS 1.
    """
    bed = np.zeros(num_samples, np.float32)
    for _ in range(NUM_TALKERS):
        order = rng.permutation(len(clips))
        talker = np.concatenate([clips[i] / max(np.std(clips[i]), 1e-6) for i in order])
        start = int(rng.integers(len(talker)))
        bed += np.resize(np.roll(talker, -start), num_samples)
    return bed / np.std(bed)


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Rooms and noise beds of one split."""

    rooms: list[tuple[float, np.ndarray]]
    """Pairs of reverberation time in s and impulse response."""
    beds: dict[str, np.ndarray]
    """Noise type -> long float32 noise."""

    def noise(self, noise_type: str, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Random crop of a noise bed, with a random sign."""
        bed = self.beds[noise_type]
        start = int(rng.integers(max(1, len(bed) - num_samples)))
        crop = np.resize(bed[start : start + num_samples], num_samples)
        return crop if rng.random() < 0.5 else -crop


def make_pools(clips: Sequence[np.ndarray], bed_s: float, seed: int | Sequence[int]) -> Pools:
    """Make the pools of one split.

    clips: dry utterances at 16 kHz, the source of the babble. bed_s: length of a noise bed.
    """
    rng = np.random.default_rng(seed)
    num_samples = round(bed_s * SAMPLE_RATE_HZ)
    beds = {name: coloured_noise(num_samples, e, rng) for name, e in COLOURS.items()}
    beds["babble"] = babble_bed(clips, num_samples, rng)
    times = rng.uniform(*RT60_S, NUM_ROOMS)
    rooms = [(float(t), room_impulse_response(float(t), SAMPLE_RATE_HZ, rng)) for t in times]
    return Pools(rooms=rooms, beds=beds)


class RecordingFacts(TypedDict):
    """Conditions of one recording, as they are written to the corpus lists."""

    noise_type: str
    """Noise type, or `quiet` for speech with little noise."""
    snr_db: float | None
    """Signal-to-noise ratio; None for a recording without speech."""
    rt60_s: float
    """Reverberation time; 0 without reverberation."""


def to_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Scale to an RMS level in dB of full scale, or to a lower one where the peak would clip."""
    rms = float(np.sqrt(np.mean(np.square(samples), dtype=np.float64)))
    gain = 10 ** (level_db / 20) / max(rms, 1e-9)
    return samples * np.float32(min(gain, 0.98 / max(float(np.abs(samples).max()), 1e-9)))


def record(
    speech: np.ndarray, pools: Pools, rng: np.random.Generator
) -> tuple[np.ndarray, RecordingFacts]:
    """Put dry speech (trimmed, 16 kHz) into a room with noise.

    Returns: ((N,) float32 in [-1, 1], facts of the recording).
    """
    margins = np.round(rng.uniform(0.15, 0.5, 2) * SAMPLE_RATE_HZ).astype(int)
    speech = np.pad(speech, margins)
    kind, snr_db, rt60_s = "quiet", float(rng.uniform(*QUIET_SNR_DB)), 0.0
    if rng.random() < REVERB_SHARE:
        time_s, room = pools.rooms[int(rng.integers(len(pools.rooms)))]
        speech = reverberate(speech, room)
        rt60_s = round(time_s, 3)
    noise_type = NOISE_TYPES[int(rng.integers(len(NOISE_TYPES)))]
    noise = pools.noise(noise_type, len(speech), rng)
    if rng.random() >= QUIET_SHARE:
        kind, snr_db = noise_type, float(rng.uniform(*SNR_DB))
    mixed = to_level(mix_at_snr(speech, noise, snr_db), rng.uniform(*LEVEL_DB))
    return mixed, RecordingFacts(noise_type=kind, snr_db=round(snr_db, 1), rt60_s=rt60_s)


def record_noise(
    duration_s: float, pools: Pools, rng: np.random.Generator
) -> tuple[np.ndarray, RecordingFacts]:
    """Make a recording without speech: two noises with a slowly changing level.

    Returns: ((N,) float32 in [-1, 1], facts of the recording).
    """
    num_samples = round(duration_s * SAMPLE_RATE_HZ)
    first, second = rng.choice(len(NOISE_TYPES), 2, replace=False)
    mixed = mix_at_snr(
        pools.noise(NOISE_TYPES[first], num_samples, rng),
        pools.noise(NOISE_TYPES[second], num_samples, rng),
        rng.uniform(0, 20),
    )
    knots = np.linspace(0, num_samples, 5)
    swell = 10 ** (np.interp(np.arange(num_samples), knots, rng.uniform(-6, 6, 5)) / 20)
    level_db = rng.uniform(LEVEL_DB[0] - 10, LEVEL_DB[1] - 4)
    facts = RecordingFacts(noise_type=NOISE_TYPES[first], snr_db=None, rt60_s=0.0)
    return to_level(mixed * swell.astype(np.float32), level_db), facts
