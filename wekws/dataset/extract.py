"""Feature extraction of utterances, in this process or in a pool of processes."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from wekws.dataset.audio import (
    AudioError,
    audio_files,
    probe,
    read_audio,
    read_part,
    read_pieces,
)
from wekws.dataset.augment import NoisePool, augment
from wekws.dataset.feature_view import AugmentConfig, FeatureView, NoiseKind, copy_rng
from wekws.dataset.features import fbank, fbank_pieces
from wekws.dataset.manifest import Utterance
from wekws.dataset.rooms import aligned_impulse_response
from wekws.dataset.vocabulary import has_words
from wekws.errors import DataError
from wekws.machine import follow_parent

MIN_BACKGROUND = 2
"""Recordings without words that are needed: one of them is another than the utterance itself."""
_NUM_BABBLE_VOICES = (3, 6)


@dataclass(frozen=True, kw_only=True)
class ExtractedFeatures:
    """Features of several utterances, end to end."""

    feats: np.ndarray
    """(frames of all utterances, F) float32."""
    num_frames: list[int]
    """Frames per utterance; 0 for one that failed."""
    failures: dict[str, str]
    """Cause by key of every utterance that failed."""
    conversions: collections.Counter[str]
    """Number of utterances that were resampled or mixed down, by kind of conversion."""
    audio: bytes
    """Checksums of the files, end to end."""


class ChunkExtractor(Protocol):
    """Computes features of the utterances of one list."""

    def extract_many(self, indices: Sequence[int], copy: int) -> ExtractedFeatures:
        """Return the features of several utterances; failures are recorded, not raised."""


class Extractor:
    """Reads and augments utterances of one list and computes their features."""

    def __init__(
        self, utterances: Sequence[Utterance], view: FeatureView, *, is_kept: bool = True
    ) -> None:
        """Take the whole list: babble and background noise are made of other utterances of it.

        is_kept: the features go into a cache, which records checksums and conversions of the audio.
        Raises: DataError if a folder of noise or rooms contains no recording.
        """
        self.keys = [utterance.key for utterance in utterances]
        self.wavs = [utterance.wav for utterance in utterances]
        self.view, self._is_kept = view, is_kept
        self._wordless = background_recordings(utterances, view.augment)
        folders = view.augment.folders if view.augment is not None else []
        self._recordings = {folder: audio_files(folder) for folder in folders}

    def extract(self, index: int, copy: int) -> torch.Tensor:
        """Return the features (T, F) of copy ``copy`` of one utterance.

        Raises: DataError if the audio cannot be used.
        """
        view = self.view
        rng = copy_rng(view.seed, copy, self.keys[index])
        sample_rate_hz = view.front_end.sample_rate_hz
        if view.augment is None and view.dither == 0:
            return self._extract_in_pieces(index)
        samples = self.read(index)
        if view.augment is not None:
            samples = augment(
                samples,
                view.augment,
                sample_rate_hz=sample_rate_hz,
                rng=rng,
                pools=self._pools(index),
                recorded_pools={
                    folder: functools.partial(self._recorded, folder) for folder in self._recordings
                },
                room_pool=self._room if view.augment.rir_dir in self._recordings else None,
            )
        # Kaldi rounds the shift down to whole samples: rounding errors must not take it below.
        shift_ms = view.front_end.frame_shift_ms * view.tempo(self.keys[index], copy) * (1 + 1e-9)
        front_end = dataclasses.replace(view.front_end, frame_shift_ms=shift_ms)
        noise: np.random.Generator | torch.Generator = rng
        if not self._is_kept:  # features of one epoch need not be those of earlier versions
            noise = torch.Generator().manual_seed(int(rng.integers(1 << 63)))
        return _finite(fbank(samples, front_end, dither=view.dither, rng=noise), self.wavs[index])

    def _extract_in_pieces(self, index: int) -> torch.Tensor:
        """Return the features of a recording as it is, without all its samples in memory."""
        front_end = self.view.front_end
        pieces = list(fbank_pieces(self.pieces(index), front_end))
        if not pieces:
            # Too short: the message of `fbank` says so.
            return fbank(self.read(index), front_end)
        return _finite(pieces[0] if len(pieces) == 1 else torch.cat(pieces), self.wavs[index])

    def extract_many(self, indices: Sequence[int], copy: int) -> ExtractedFeatures:
        """Return the features of several utterances; failures are recorded, not raised."""
        return extract_each(
            [(self.keys[index], self.wavs[index]) for index in indices],
            [functools.partial(self._values, index, copy) for index in indices],
            num_values=self.view.front_end.num_mel_bins,
            sample_rate_hz=self.view.front_end.sample_rate_hz if self._is_kept else None,
        )

    def read(self, index: int) -> np.ndarray:
        """Return the samples of an utterance. Raises: AudioError."""
        return read_audio(self.wavs[index], self.view.front_end.sample_rate_hz)

    def pieces(self, index: int) -> Iterator[np.ndarray]:
        """Yield the samples of an utterance piece by piece. Raises: AudioError."""
        return read_pieces(self.wavs[index], self.view.front_end.sample_rate_hz)

    def part(self, index: int, num_samples: int, start: float) -> np.ndarray:
        """Return that much of an utterance, or all of a shorter one. Raises: AudioError.

        start: where the part lies, from 0, at the beginning, to 1, at the end.
        """
        rate = self.view.front_end.sample_rate_hz
        return read_part(self.wavs[index], rate, num_samples, start)

    def babble_sources(self, own: int) -> Sequence[int]:
        """Return the utterances that babble over one of them may be made of."""
        return range(len(self.wavs))

    def background_sources(self) -> Sequence[int]:
        """Return the utterances without words that can be read now, in order."""
        return self._wordless

    def _values(self, index: int, copy: int) -> np.ndarray:
        return self.extract(index, copy).numpy()

    def _pools(self, own: int) -> dict[NoiseKind, NoisePool]:
        """Return the sources of noise over an utterance that are other utterances of the list."""
        pools: dict[NoiseKind, NoisePool] = {}
        if len(self.keys) > 1:
            pools["babble"] = functools.partial(self._babble, own)
        if len(self.background_sources()) >= MIN_BACKGROUND:
            pools["background"] = functools.partial(self._background, own)
        return pools

    def _background(self, own: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return part of another recording without words, from a random start."""
        sources = self.background_sources()
        place = int(rng.integers(len(sources)))
        other = sources[place - 1 if sources[place] == own else place]
        start = rng.random()
        # As with babble: one that cannot be read is reported as an utterance of its own.
        with contextlib.suppress(AudioError):
            return _fit_length(self.part(other, num_samples, start), num_samples, 0.0)
        return np.zeros(num_samples, np.float32)

    def _babble(self, own: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Sum several other utterances, all at the same power, each from a random start."""
        low, high = _NUM_BABBLE_VOICES
        sources = self.babble_sources(own)
        place = sources.index(own)
        count = min(int(rng.integers(low, high + 1)), len(sources) - 1)
        others = rng.choice(len(sources) - 1, count, replace=False)
        total = np.zeros(num_samples, np.float32)
        for other in others:
            start = rng.random()
            # Skip unreadable babble sources; they are reported as utterances of their own.
            with contextlib.suppress(AudioError):
                voice = self.read(sources[other + (other >= place)])
                total += _fit_length(voice, num_samples, start)
        return total

    def _recorded(self, folder: str, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        return _fit_length(self._draw(folder, rng), num_samples, rng.random())

    def _room(self, rng: np.random.Generator) -> np.ndarray:
        assert self.view.augment is not None
        return aligned_impulse_response(self._draw(self.view.augment.rir_dir, rng))

    def _draw(self, folder: str, rng: np.random.Generator) -> np.ndarray:
        paths = self._recordings[folder]
        path = paths[rng.integers(len(paths))]
        return _read_recording(str(path), self.view.front_end.sample_rate_hz)


def background_recordings(
    utterances: Sequence[Utterance], augment: AugmentConfig | None
) -> list[int]:
    """Return the places of those that are background noise: they have no words.

    Empty where that kind of noise is not used.
    """
    if augment is None or not augment.noise_prob or "background" not in augment.noise_weights:
        return []
    return [i for i, u in enumerate(utterances) if not has_words(u.tok or u.txt)]


def _finite(feats: torch.Tensor, wav: str) -> torch.Tensor:
    if not torch.isfinite(feats).all():
        raise DataError(f"{wav}: features are not finite; expected samples between -1 and 1")
    return feats


def extract_each(
    wavs: Sequence[tuple[str, str]],
    computations: Iterable[Callable[[], np.ndarray]],
    *,
    num_values: int,
    sample_rate_hz: int | None,
) -> ExtractedFeatures:
    """Run the computation of each utterance; those that raise a DataError have no frames.

    wavs: key and audio file of each. computations: one for each, returning (T, num_values).
    sample_rate_hz: rate that the audio is converted to; None: checksums and conversions are not
    recorded.
    """
    arrays: list[np.ndarray] = []
    failures: dict[str, str] = {}
    conversions: collections.Counter[str] = collections.Counter()
    audio = []
    for (key, wav), compute in zip(wavs, computations, strict=True):
        try:
            conversion = ""
            if sample_rate_hz is not None:
                audio.append(_file_sha1(wav))
                conversion = probe(wav).conversion(sample_rate_hz)
            arrays.append(compute())
        except DataError as error:
            failures[key] = str(error)
            arrays.append(np.empty((0, num_values), np.float32))
            continue
        if conversion:
            conversions[conversion] += 1
    return ExtractedFeatures(
        feats=np.concatenate(arrays),
        num_frames=[len(array) for array in arrays],
        failures=failures,
        conversions=conversions,
        audio=b"".join(audio),
    )


def _file_sha1(path: str) -> bytes:
    """Return the checksum of a file's bytes; empty if it cannot be read, which is found later."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha1").digest()
    except OSError:
        return b""


@functools.lru_cache(maxsize=16)
def _read_recording(path: str, sample_rate_hz: int) -> np.ndarray:
    return read_audio(path, sample_rate_hz)


def _fit_length(samples: np.ndarray, num_samples: int, start: float) -> np.ndarray:
    """Return num_samples at unit power, repeating the recording where it is shorter.

    start: where to begin, as a share of the recording, 0 to 1.
    """
    first = int(start * len(samples))
    cut = np.resize(np.concatenate((samples[first:], samples[:first])), num_samples)
    rms = np.sqrt(np.mean(np.square(cut), dtype=np.float64))
    return cut / np.float32(max(rms, 1e-12))


_extractor: ChunkExtractor


def _start_worker(make_extractor: Callable[[], ChunkExtractor]) -> None:
    global _extractor
    torch.set_num_threads(1)
    _extractor = make_extractor()
    follow_parent()


def _work(indices: Sequence[int], copy: int) -> ExtractedFeatures:
    return _extractor.extract_many(indices, copy)


class ExtractionPool:
    """Extracts chunks of utterances in order, in this process or in worker processes."""

    def __init__(self, make_extractor: Callable[[], ChunkExtractor], num_workers: int) -> None:
        """Start the workers.

        make_extractor: called once in each process; it is pickled on the way there.
        num_workers: processes with one thread each; 0: extract in this process.
        Raises: what ``make_extractor`` raises.
        """
        self.num_workers = num_workers
        self._executor: Executor | None = None
        # Also made in this process, so that an empty noise folder is refused before the start.
        self._extractor = make_extractor()
        if num_workers > 0:
            # Forking a process in which torch has used threads or a GPU is unsafe. The fork
            # server has only imported this module, and it does so once for all workers.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._executor = ProcessPoolExecutor(
                num_workers, context, _start_worker, (make_extractor,)
            )

    def map(
        self, indices: Sequence[int], copy: int, chunk_size: int
    ) -> Iterator[ExtractedFeatures]:
        """Yield the features of consecutive chunks; a few chunks are extracted in advance."""
        chunks = [indices[i : i + chunk_size] for i in range(0, len(indices), chunk_size)]
        if self._executor is None:
            yield from (self._extractor.extract_many(chunk, copy) for chunk in chunks)
            return
        pending: collections.deque[Future[ExtractedFeatures]] = collections.deque()
        for chunk in chunks:
            pending.append(self._executor.submit(_work, chunk, copy))
            if len(pending) > 4 * self.num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def submit(self, indices: Sequence[int], copy: int) -> Future[ExtractedFeatures]:
        """Let a process extract the features of some utterances; without processes, do it now."""
        if self._executor is not None:
            return self._executor.submit(_work, indices, copy)
        done: Future[ExtractedFeatures] = Future()
        done.set_result(self._extractor.extract_many(indices, copy))
        return done

    def extract_now(self, indices: Sequence[int], copy: int) -> list[ExtractedFeatures]:
        """Return the features of one batch, divided evenly among the processes."""
        share = -(-len(indices) // max(1, self.num_workers))
        return list(self.map(indices, copy, share))

    def close(self) -> None:
        """End the processes; unfinished work is discarded."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> "ExtractionPool":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()
