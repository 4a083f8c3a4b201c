"""Sources of the features of a data set: caches on disk, or audio files read in every epoch.

Axes: N utterances of the list, B batch, T frames of 10 ms, F mel bins.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from wekws.dataset.cache import FeatureCache, padded_index
from wekws.dataset.extract import ExtractedFeatures, ExtractionPool
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.manifest import Utterance
from wekws.errors import DataError
from wekws.front_end import FrontEnd

logger = logging.getLogger(__name__)


class FeatureSource(Protocol):
    """Gives the features of the utterances of one list."""

    audio_fingerprint: str
    """Hash that tells the audio; empty: unknown."""
    num_ahead: int
    """Batches that it makes at the same time without slowing down."""

    def num_frames(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance in an epoch, (N,); before a speed change online."""

    def start(self, rows: np.ndarray, epoch: int) -> None:
        """Take the utterances of an epoch in the order in which features will be asked for."""

    def features(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, T, F) float32, padded with 0, and (B,) frames; 0 for an unreadable one."""

    def speed(self, key: str, epoch: int) -> float:
        """Return how many times as fast as the recording an utterance is in an epoch."""

    def close(self) -> None:
        """End its processes."""


class CacheSource:
    """Features from caches, one per augmented copy; the copies take turns."""

    num_ahead = 1

    def __init__(self, caches: Sequence[FeatureCache], views: Sequence[FeatureView]) -> None:
        """views: those of the caches."""
        self._caches, self._views = caches, views
        self.audio_fingerprint = caches[0].audio_fingerprint

    def num_frames(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance in the copy of this epoch, (N,)."""
        return self._cache(epoch).num_frames

    def start(self, rows: np.ndarray, epoch: int) -> None:
        """Do nothing: any utterance is found at once."""

    def features(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the features and the frames of some utterances."""
        cache = self._cache(epoch)
        return cache.gather(rows), cache.num_frames[rows]

    def speed(self, key: str, epoch: int) -> float:
        """Return the speed of an utterance in the copy of this epoch."""
        view = self._views[epoch % len(self._views)]
        return view.speed(key, view.copy)

    def close(self) -> None:
        """Do nothing."""

    def _cache(self, epoch: int) -> FeatureCache:
        return self._caches[epoch % len(self._caches)]


class AudioSource:
    """Features computed from the audio files whenever they are needed, in worker processes."""

    def __init__(
        self,
        pool: ExtractionPool,
        view: FeatureView,
        *,
        num_frames: np.ndarray,
        audio_fingerprint: str,
        max_bad_fraction: float,
    ) -> None:
        """pool: computes the features of a list under ``view``, with the epoch as the copy.

        num_frames: (N,) without augmentation. max_bad_fraction: share of N that may turn out to be
        unreadable.
        """
        self._pool, self._view, self._num_frames = pool, view, num_frames
        self.audio_fingerprint = audio_fingerprint
        self.num_ahead = 2 if pool.num_workers else 1
        self._failures = FailureCount(len(num_frames), max_bad_fraction)

    def num_frames(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance without augmentation, (N,)."""
        return self._num_frames

    def start(self, rows: np.ndarray, epoch: int) -> None:
        """Do nothing: any file can be opened."""

    def features(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute the features of some utterances.

        Raises: DataError if too many utterances cannot be read.
        """
        parts = self._pool.extract_now(rows.tolist(), epoch)
        for part in parts:
            self._failures.add(part)
        return padded([part.feats for part in parts], [n for p in parts for n in p.num_frames])

    def speed(self, key: str, epoch: int) -> float:
        """Return the speed that augmentation gives an utterance in an epoch."""
        return self._view.speed(key, epoch)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


class FailureCount:
    """Counts the utterances that turn out to be unreadable in training."""

    def __init__(self, num_utterances: int, max_bad_fraction: float) -> None:
        """num_utterances: of the list."""
        self._num, self._max = num_utterances, max_bad_fraction
        self._causes: dict[str, str] = {}

    def add(self, part: ExtractedFeatures) -> None:
        """Log the failures of a part that are new.

        Raises: DataError if there are too many by now.
        """
        for key, cause in part.failures.items():
            if key not in self._causes:
                self._causes[key] = cause
                logger.warning("utterance %s is left out: %s", key, cause)
        if len(self._causes) > self._max * self._num:
            key, cause = next(iter(self._causes.items()))
            raise DataError(
                f"{len(self._causes)} of {self._num} utterances cannot be used (allowed: "
                f"max_bad_fraction {self._max:g}); first {key}: {cause}"
            )


def padded(feats: Sequence[np.ndarray], lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, T, F) of sequences that stand end to end in ``feats``, and their lengths (B,)."""
    num_frames = np.array(lengths, np.int64)
    frames = np.concatenate([*feats, np.zeros_like(feats[0], shape=(1, feats[0].shape[1]))])
    offsets = np.concatenate([[0], np.cumsum(num_frames)])
    index = padded_index(offsets, np.arange(len(num_frames)), len(frames) - 1)
    return frames[index], num_frames


def frames_by_duration(utterances: Sequence[Utterance], front_end: FrontEnd) -> np.ndarray:
    """Return the frames that the durations of a list give, (N,); no audio file is opened."""
    rate = front_end.sample_rate_hz
    return np.array([front_end.num_frames(round(u.duration * rate)) for u in utterances])


def sizes_fingerprint(utterances: Sequence[Utterance]) -> str:
    """Return a hash of names and sizes of a list's audio files, for lists without a cache."""
    digest = hashlib.sha256()
    for utterance in utterances:
        size = os.path.getsize(utterance.wav) if os.path.isfile(utterance.wav) else 0
        digest.update(f"{utterance.key}\0{size}\n".encode())
    return digest.hexdigest()[:16]
