"""One utterance from its file to features, alone or in a pool of processes."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wekws.dataset.audio import AudioError, probe, read_audio
from wekws.dataset.augment import AugmentConfig, augment
from wekws.dataset.features import fbank
from wekws.dataset.manifest import Utterance
from wekws.errors import DataError
from wekws.front_end import FrontEnd

# Counted up whenever the same settings give other features: old caches are then rebuilt.
_VERSION = 1
_NUM_BABBLE_VOICES = (3, 6)
_NOISE_SUFFIXES = {".wav", ".flac", ".ogg"}


@dataclass(frozen=True, kw_only=True)
class FeatureView:
    """What decides, besides the audio, which features come out."""

    front_end: FrontEnd
    # The dither in use: fbank.dither in training, 0 elsewhere.
    dither: float = 0.0
    # None: the audio as it is.
    augment: AugmentConfig | None = None
    # Copy k of an utterance is a function of (seed, copy, key).
    copy: int = 0
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """Return the settings that change features, as plain values."""
        settings = dataclasses.asdict(self) | {"version": _VERSION}
        # Context and frame skip come after the cached features.
        del settings["front_end"]
        settings["sample_rate_hz"] = self.front_end.sample_rate_hz
        settings["fbank"] = {
            "num_mel_bins": self.front_end.num_mel_bins,
            "frame_shift": self.front_end.frame_shift_ms,
            "frame_length": self.front_end.frame_length_ms,
        }
        if self.augment is not None:
            del settings["augment"]["copies"], settings["augment"]["seed"]
        if self.augment is None and self.dither == 0:
            del settings["seed"], settings["copy"]
        return settings


@dataclass
class Extracted:
    """Features of several utterances, end to end."""

    feats: np.ndarray
    """(frames of all, F) float32."""
    num_frames: list[int]
    """For each utterance; 0 for one that failed."""
    failures: dict[str, str] = field(default_factory=dict)
    """Key to cause."""
    conversions: collections.Counter[str] = field(default_factory=collections.Counter)
    """Resampled or mixed down, with how many."""


class Extractor:
    """Reads, augments and transforms utterances of one list."""

    def __init__(self, utterances: Sequence[Utterance], view: FeatureView):
        """Take the whole list: babble is made of its other utterances.

        Raises: DataError if the noise folder holds no recording.
        """
        self.keys = [utterance.key for utterance in utterances]
        self.wavs = [utterance.wav for utterance in utterances]
        self.view = view
        noise_dir = view.augment.noise_dir if view.augment is not None else ""
        self._noise_paths = noise_files(noise_dir) if noise_dir else []

    def extract(self, index: int, copy: int) -> torch.Tensor:
        """Return the features (T, F) of copy ``copy`` of one utterance.

        Raises: DataError if the audio cannot be used.
        """
        view = self.view
        rng = copy_rng(view.seed, copy, self.keys[index])
        sample_rate_hz = view.front_end.sample_rate_hz
        samples = read_audio(self.wavs[index], sample_rate_hz)
        if view.augment is not None:
            samples = augment(
                samples,
                sample_rate_hz,
                view.augment,
                rng,
                babble_pool=functools.partial(self._babble, index) if len(self.keys) > 1 else None,
                recorded_pool=self._recorded if self._noise_paths else None,
            )
        return fbank(samples, view.front_end, view.dither, rng)

    def extract_many(self, indices: Sequence[int], copy: int) -> Extracted:
        """Return the features of several utterances; failures are noted, not raised."""
        arrays, result = [], Extracted(np.empty(0), [])
        for index in indices:
            try:
                conversion = probe(self.wavs[index]).conversion(self.view.front_end.sample_rate_hz)
                arrays.append(self.extract(index, copy).numpy())
            except DataError as error:
                result.failures[self.keys[index]] = str(error)
                arrays.append(np.empty((0, self.view.front_end.num_mel_bins), np.float32))
                continue
            if conversion:
                result.conversions[conversion] += 1
        result.num_frames = [len(array) for array in arrays]
        result.feats = np.concatenate(arrays)
        return result

    def _babble(self, own: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Sum several other utterances, each at the same power, from random places."""
        low, high = _NUM_BABBLE_VOICES
        count = min(rng.integers(low, high + 1), len(self.wavs) - 1)
        others = rng.choice(len(self.wavs) - 1, count, replace=False)
        total = np.zeros(num_samples, np.float32)
        for other in others:
            path = self.wavs[other + (other >= own)]
            start = rng.random()
            # Skip unreadable babble sources; they are reported on their own.
            with contextlib.suppress(AudioError):
                voice = read_audio(path, self.view.front_end.sample_rate_hz)
                total += _stretch(voice, num_samples, start)
        return total

    def _recorded(self, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        path = self._noise_paths[rng.integers(len(self._noise_paths))]
        noise = _read_noise(str(path), self.view.front_end.sample_rate_hz)
        return _stretch(noise, num_samples, rng.random())


def copy_rng(seed: int, copy: int, key: str) -> np.random.Generator:
    """Return the generator of one copy of one utterance, whatever the order of the list."""
    digest = hashlib.sha256(f"{seed}\0{copy}\0{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def noise_files(noise_dir: str) -> list[Path]:
    """Return the recordings below a folder, sorted.

    Raises: DataError if there is none.
    """
    paths = sorted(p for p in Path(noise_dir).rglob("*") if p.suffix.lower() in _NOISE_SUFFIXES)
    if not paths:
        raise DataError(f"{noise_dir}: no wav, flac or ogg below; expected noise recordings")
    return paths


@functools.lru_cache(maxsize=16)
def _read_noise(path: str, sample_rate_hz: int) -> np.ndarray:
    return read_audio(path, sample_rate_hz)


def _stretch(samples: np.ndarray, num_samples: int, start: float) -> np.ndarray:
    """Cut num_samples at unit power, beginning at a share of the whole, round and round."""
    first = int(start * len(samples))
    cut = np.resize(np.concatenate((samples[first:], samples[:first])), num_samples)
    rms = np.sqrt(np.mean(np.square(cut), dtype=np.float64))
    return cut / np.float32(max(rms, 1e-12))


_extractor: Extractor


def _start_worker(utterances: Sequence[Utterance], view: FeatureView) -> None:
    global _extractor
    torch.set_num_threads(1)
    _extractor = Extractor(utterances, view)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool whose owner is killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(indices: Sequence[int], copy: int) -> Extracted:
    return _extractor.extract_many(indices, copy)


class ExtractionPool:
    """Extracts chunks of utterances in order, in this process or in others."""

    def __init__(self, utterances: Sequence[Utterance], view: FeatureView, num_workers: int):
        """num_workers: processes of one thread each; 0: in this process."""
        self._num_workers = num_workers
        self._executor: Executor | None = None
        # Made here too, so that a noise folder without noise is refused before any process starts.
        self._extractor = Extractor(utterances, view)
        if num_workers > 0:
            # Forking a process in which torch has run threads or a GPU is unsafe; a server
            # that has only imported this module is not, and imports it once for all workers.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._executor = ProcessPoolExecutor(
                num_workers, context, _start_worker, (list(utterances), view)
            )

    def map(self, indices: Sequence[int], copy: int, chunk_size: int) -> Iterator[Extracted]:
        """Yield the features of consecutive chunks; a few chunks are ahead of the consumer."""
        chunks = [indices[i : i + chunk_size] for i in range(0, len(indices), chunk_size)]
        if self._executor is None:
            yield from (self._extractor.extract_many(chunk, copy) for chunk in chunks)
            return
        pending = collections.deque()
        for chunk in chunks:
            pending.append(self._executor.submit(_work, chunk, copy))
            if len(pending) > 4 * self._num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def extract_now(self, indices: Sequence[int], copy: int) -> list[Extracted]:
        """Return the features of one batch, shared evenly among the processes."""
        share = -(-len(indices) // max(1, self._num_workers))
        return list(self.map(indices, copy, share))

    def close(self) -> None:
        """End the processes; unfinished work is dropped."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> "ExtractionPool":
        """Return itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Close."""
        self.close()
