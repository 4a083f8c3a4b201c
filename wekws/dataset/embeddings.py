"""Embeddings of a data list: a feature teacher's outputs, computed once and memory-mapped.

They are those of the recordings as they are, without augmentation, so that one cache serves every
augmented copy, every seed and every run. A student whose input has noise or a room added is
trained towards the embedding of the clean recording. Where its input is faster or slower, the
places of the windows are divided by the speed: time is the only thing that augmentation moves.

Axes: B batch, K embeddings, D values per embedding.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wekws.dataset.audio import read_audio
from wekws.dataset.batch import Embeddings
from wekws.dataset.cache import (
    CacheContent,
    FeatureCache,
    cache_path,
    open_or_build,
)
from wekws.dataset.extract import ExtractedFeatures, extract_each
from wekws.dataset.feature_teacher import FeatureTeacher, load_feature_teacher
from wekws.dataset.manifest import Utterance, audio_lines
from wekws.errors import DataError
from wekws.front_end import FrontEnd

logger = logging.getLogger(__name__)

# Increased when the same teacher and audio give different embeddings.
_VERSION = 1
# A channel that hardly varies is not scaled up to deviation 1.
_LEAST_DEVIATION = 1e-5


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpace:
    """Frame rate and statistics of a feature teacher's outputs."""

    window_ms: float
    """Audio that one embedding is computed from."""
    hop_ms: float
    """Time from one embedding to the next."""
    mean: torch.Tensor
    """(D,) mean over a training set."""
    deviation: torch.Tensor
    """(D,) standard deviation over it, > 0."""

    @property
    def num_values(self) -> int:
        """Numbers per embedding, D."""
        return len(self.mean)


class EmbeddingSet:
    """Cached embeddings of every utterance of a list."""

    def __init__(
        self, cache: FeatureCache, *, window_ms: float, hop_ms: float, fingerprint: str
    ) -> None:
        """Take a finished cache.

        window_ms, hop_ms: of the feature teacher. fingerprint: of the feature teacher.
        """
        self._cache = cache
        self._window_ms, self._hop_ms = window_ms, hop_ms
        self.fingerprint = fingerprint

    @property
    def num_embeddings(self) -> np.ndarray:
        """(N,) embeddings per utterance, 0 for one that is shorter than a window."""
        return self._cache.num_frames

    def space(self) -> EmbeddingSpace:
        """Return the frame rate, and mean and deviation over all embeddings of the list.

        Raises: DataError if no utterance is as long as a window.
        """
        frames = self._cache.frames
        if len(frames) == 0:
            raise DataError(
                f"{self._cache.directory}: no utterance is as long as the feature teacher's window "
                f"of {self._window_ms:g} ms; train without it"
            )
        # Sums by piece: the whole set may be larger than the memory.
        total, squares = np.zeros((2, frames.shape[1]))
        for piece in np.array_split(frames, -(-len(frames) // 65536)):
            total += piece.sum(axis=0, dtype=np.float64)
            squares += np.square(piece, dtype=np.float64).sum(axis=0)
        mean = total / len(frames)
        variance = squares / len(frames) - np.square(mean)
        deviation = np.sqrt(np.maximum(variance, 0.0)).clip(min=_LEAST_DEVIATION)
        return EmbeddingSpace(
            window_ms=self._window_ms,
            hop_ms=self._hop_ms,
            mean=torch.from_numpy(mean).float(),
            deviation=torch.from_numpy(deviation).float(),
        )

    def gather(self, rows: np.ndarray, speeds: np.ndarray, front_end: FrontEnd) -> Embeddings:
        """Return the embeddings of some utterances, with the places of their windows.

        rows: (B,) rows of the cache. speeds: (B,) how many times as fast as the recording each
        utterance is played. front_end: makes the frames that places are counted in.
        """
        values = self._cache.gather(rows)
        starts_ms = np.arange(values.shape[1]) * self._hop_ms / speeds[:, None]
        ends_ms = starts_ms + self._window_ms / speeds[:, None]
        return Embeddings(
            values=torch.from_numpy(values),
            starts=_frames(starts_ms, front_end),
            ends=_frames(ends_ms, front_end),
            lengths=torch.from_numpy(self._cache.num_frames[rows]),
        )


def _frames(times_ms: np.ndarray, front_end: FrontEnd) -> torch.Tensor:
    """Return times in filterbank frames; the centre of frame i is in the middle of its window."""
    places = (times_ms - front_end.frame_length_ms / 2) / front_end.frame_shift_ms
    return torch.from_numpy(places).float()


class EmbeddingExtractor:
    """Reads utterances of one list and runs a feature teacher on them."""

    def __init__(self, utterances: Sequence[Utterance], teacher_name: str) -> None:
        """Load the teacher. Raises: ConfigError, see ``load_feature_teacher``."""
        self._keys = [utterance.key for utterance in utterances]
        self._wavs = [utterance.wav for utterance in utterances]
        self._teacher = load_feature_teacher(teacher_name)

    def extract_many(self, indices: Sequence[int], copy: int) -> ExtractedFeatures:
        """Return the embeddings of several utterances; failures are recorded, not raised.

        copy: without effect, the audio is not augmented.
        """
        return extract_each(
            [(self._keys[index], self._wavs[index]) for index in indices],
            [functools.partial(self._embed, self._wavs[index]) for index in indices],
            num_values=self._teacher.num_values,
            sample_rate_hz=self._teacher.sample_rate_hz,
        )

    def _embed(self, wav: str) -> np.ndarray:
        return self._teacher.embed(read_audio(wav, self._teacher.sample_rate_hz))


def open_embeddings(
    data_list: str | os.PathLike[str],
    utterances: Sequence[Utterance],
    *,
    teacher_name: str,
    cache_dir: str | os.PathLike[str],
    num_workers: int,
    max_bad_fraction: float,
) -> EmbeddingSet:
    """Return the embeddings of a list, computed first if they are missing or out of date.

    A cache belongs to one list, teacher and front end of the teacher, and to the size and time of
    every audio file; where one of these has changed it is built again.
    teacher_name: see ``load_feature_teacher``.
    Raises: ConfigError if there is no such teacher; DataError if more than max_bad_fraction of the
    utterances cannot be read, or all.
    """
    teacher = load_feature_teacher(teacher_name)
    identity = {"feature_teacher": teacher.fingerprint, "version": _VERSION}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    digest.update(audio_lines(utterances))
    content = CacheContent(
        identity={**identity, "name": teacher.name},
        fingerprint=digest.hexdigest(),
        num_values=teacher.num_values,
        expected_frames=sum(u.duration for u in utterances) * 1000 / teacher.hop_ms,
        num_utterances=len(utterances),
        make_extractor=functools.partial(EmbeddingExtractor, list(utterances), teacher_name),
    )
    cache = open_or_build(
        cache_path(cache_dir, data_list, identity, kind="embeddings"),
        content,
        num_workers=num_workers,
        max_bad_fraction=max_bad_fraction,
    )
    _log_short(data_list, cache, teacher)
    return EmbeddingSet(
        cache,
        window_ms=teacher.window_ms,
        hop_ms=teacher.hop_ms,
        fingerprint=teacher.fingerprint[:16],
    )


def _log_short(
    data_list: str | os.PathLike[str], cache: FeatureCache, teacher: FeatureTeacher
) -> None:
    num_short = int((cache.num_frames == 0).sum()) - len(cache.failures)
    logger.info(
        "%s: %d embeddings of the feature teacher %s; %d of %d utterances are shorter than its "
        "window of %g ms and have none",
        data_list,
        int(cache.num_frames.sum()),
        teacher.name,
        num_short,
        len(cache.num_frames),
        teacher.window_ms,
    )
