"""Shards: the audio of a list in tar files that are read from start to end.

A disk or a network that is slow to open a million files is fast at reading a few large ones. The
shards are WebDataset's: of each utterance the audio file as it is, and a JSON file with its id and
transcript, under a number. A ``data.list`` beside them tells everything else; its ``wav`` names
shard and number (``DIR/000002.tar#000513``), so that nothing is opened before the training begins.

Axes: N utterances of the list, B batch.
"""

import collections
import functools
import hashlib
import importlib
import json
import os
import random
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wekws.dataset.audio import AudioError, audio_from_bytes, probe
from wekws.dataset.extract import ExtractedFeatures, ExtractionPool, Extractor
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.manifest import Utterance, read_data_list, write_data_list
from wekws.dataset.sources import FailureCount, padded
from wekws.errors import ConfigError, DataError

LIST_NAME = "data.list"
_PLACE = re.compile(r"(?P<shard>.+\.tar)#(?P<name>\d+)")


def is_sharded(utterances: Sequence[Utterance]) -> bool:
    """Return whether the audio of a list is in shards."""
    return _PLACE.fullmatch(utterances[0].wav) is not None


def write_shards(
    data_list: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    shard_size: int = 500,
    seed: int = 0,
) -> Path:
    """Write a list's audio files into shards in a random order; return the list beside them.

    shard_size: utterances per shard. The memory of a training grows with it, by the features of
    two shards per worker.
    seed: of the order, so that every shard holds a sample of the whole list.
    Raises: DataError naming the first file that cannot be read, or if the folder has shards.
    """
    webdataset = _webdataset()
    out_dir = Path(out_dir)
    if shard_size < 1:
        raise ConfigError(f"shard_size: found {shard_size}; expected at least 1")
    if (out_dir / LIST_NAME).exists():
        raise DataError(f"{out_dir}: holds shards already; name another --out_dir")
    out_dir.mkdir(parents=True, exist_ok=True)
    utterances = read_data_list(data_list)
    random.Random(seed).shuffle(utterances)
    written = []
    for number, begin in enumerate(range(0, len(utterances), shard_size)):
        path = (out_dir / f"{number:06d}.tar").resolve()
        # Owner and time are constant: the same list gives the same bytes.
        with webdataset.TarWriter(str(path), mtime=0, user="", group="") as writer:
            for i, utterance in enumerate(utterances[begin : begin + shard_size], start=begin):
                name = f"{i:09d}"
                writer.write(_sample(name, utterance))
                written.append(utterance._replace(wav=f"{path}#{name}"))
    write_data_list(out_dir / LIST_NAME, written)
    return out_dir / LIST_NAME


def _sample(name: str, utterance: Utterance) -> dict[str, Any]:
    probe(utterance.wav)
    audio = Path(utterance.wav)
    about = {"key": utterance.key, "txt": utterance.txt, "duration": utterance.duration}
    suffix = audio.suffix.lower().lstrip(".") or "wav"
    return {"__key__": name, suffix: audio.read_bytes(), "json": about}


class ShardExtractor(Extractor):
    """Reads whole shards and computes the features of their utterances."""

    def __init__(self, utterances: Sequence[Utterance], view: FeatureView) -> None:
        """Take a list of ``write_shards``."""
        super().__init__(utterances, view, is_kept=False)
        self._content: dict[int, bytes] = {}
        self._without_words = frozenset(super().background_sources())

    def extract_many(self, indices: Sequence[int], copy: int) -> ExtractedFeatures:
        """Return the features of utterances of one shard; failures are recorded, not raised."""
        by_name = {self.wavs[index].rpartition("#")[2]: index for index in indices}
        self._content = {}
        try:
            for name, content in read_shard(shard_of(self.wavs[indices[0]])):
                if name in by_name:
                    self._content[by_name[name]] = content
            return super().extract_many(indices, copy)
        finally:
            self._content = {}

    def read(self, index: int) -> np.ndarray:
        """Return the samples of an utterance of the shard. Raises: AudioError."""
        wav = self.wavs[index]
        if index not in self._content:
            raise AudioError(wav, "missing", "not in its shard", "write the shards again")
        rate = self.view.front_end.sample_rate_hz
        return audio_from_bytes(self._content[index], wav, rate)

    def pieces(self, index: int) -> Iterator[np.ndarray]:
        """Yield the samples of an utterance of the shard at once. Raises: AudioError."""
        yield self.read(index)

    def part(self, index: int, num_samples: int, start: float) -> np.ndarray:
        """Return a part of an utterance of the shard, as `Extractor.part`. Raises: AudioError."""
        samples = self.read(index)
        first = int(start * max(0, len(samples) - num_samples))
        return samples[first : first + num_samples]

    def babble_sources(self, own: int) -> Sequence[int]:
        """Return the utterances of the same shard."""
        return sorted(self._content)

    def background_sources(self) -> Sequence[int]:
        """Return the utterances without words of the same shard."""
        return sorted(self._without_words & self._content.keys())


def read_shard(path: str) -> list[tuple[str, bytes]]:
    """Return number and audio file of each utterance of a shard; nothing of one that is missing.

    A shard that is cut off gives what stands before the cut.
    """
    found = []
    try:
        for sample in _webdataset().WebDataset(path, shardshuffle=False, empty_check=False):
            suffix = next(k for k in sample if k != "json" and not k.startswith("__"))
            found.append((sample["__key__"], sample[suffix]))
    except (OSError, tarfile.TarError, EOFError, ValueError):
        pass  # what is missing of it is reported utterance by utterance
    return found


def shard_of(wav: str) -> str:
    """Return the path of the shard of an utterance."""
    return wav.rpartition("#")[0]


class ShardSource:
    """Features of shards, read in the order in which ``start`` names their utterances."""

    num_ahead = 1

    def __init__(
        self,
        utterances: Sequence[Utterance],
        view: FeatureView,
        *,
        num_workers: int,
        num_frames: np.ndarray,
        max_bad_fraction: float,
    ) -> None:
        """num_workers: processes, each of which reads one shard at a time.

        num_frames: (N,) without augmentation. max_bad_fraction: share of N that may turn out to be
        unreadable.
        """
        names = [shard_of(utterance.wav) for utterance in utterances]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.shards: np.ndarray = np.array([numbers[name] for name in names])
        """(N,) number of each utterance's shard."""
        sizes = {name: os.path.getsize(name) for name in numbers if os.path.isfile(name)}
        if missing := [name for name in numbers if name not in sizes]:
            raise DataError(
                f"{missing[0]}: no such shard ({len(missing)} of {len(numbers)} are missing); "
                "write them with wekws.bin.make_shards"
            )
        content = json.dumps([(Path(name).name, size) for name, size in sizes.items()])
        self.audio_fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
        make_extractor = functools.partial(ShardExtractor, utterances, view)
        self._pool = ExtractionPool(make_extractor, num_workers)
        self._view, self._num_frames = view, num_frames
        self._failures = FailureCount(len(num_frames), max_bad_fraction)
        self._epoch = 0
        self._to_read: collections.deque[np.ndarray] = collections.deque()
        self._pending: collections.deque[tuple[np.ndarray, Future[ExtractedFeatures]]]
        self._pending = collections.deque()
        self._num_left: collections.Counter[int] = collections.Counter()
        self._read: dict[int, np.ndarray] = {}

    def num_frames(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance without augmentation, (N,)."""
        return self._num_frames

    def start(self, rows: np.ndarray, epoch: int) -> None:
        """Begin to read the shards of an epoch, in the order in which their utterances are needed.

        rows: utterances in the order in which ``features`` will be asked for them.
        """
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()
        self._read.clear()
        self._epoch, self._num_left = epoch, collections.Counter(rows.tolist())
        by_shard: dict[int, dict[int, None]] = {}
        for row, shard in zip(rows.tolist(), self.shards[rows].tolist(), strict=True):
            by_shard.setdefault(shard, {})[row] = None
        self._to_read = collections.deque(np.array(list(wanted)) for wanted in by_shard.values())
        self._read_ahead()

    def features(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of the next utterances.

        Raises: DataError if too many utterances cannot be read.
        """
        assert epoch == self._epoch, "start() begins an epoch"
        feats = []
        for row in rows.tolist():
            while row not in self._read:
                self._read_next()
            feats.append(self._read[row])
            self._num_left[row] -= 1
            if self._num_left[row] == 0:
                del self._read[row]
        return padded(feats, [len(f) for f in feats])

    def speed(self, key: str, epoch: int) -> float:
        """Return the speed that augmentation gives an utterance in an epoch."""
        return self._view.speed(key, epoch)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def _read_ahead(self) -> None:
        while self._to_read and len(self._pending) <= self._pool.num_workers:
            rows = self._to_read.popleft()
            self._pending.append((rows, self._pool.submit(rows.tolist(), self._epoch)))

    def _read_next(self) -> None:
        rows, future = self._pending.popleft()
        part = future.result()
        self._read_ahead()
        self._failures.add(part)
        ends = np.cumsum(part.num_frames)[:-1]
        self._read |= zip(rows.tolist(), np.split(part.feats, ends), strict=True)


def shard_order(
    shards: np.ndarray,
    *,
    epoch: int,
    seed: int,
    world_size: int,
    buffer_size: int,
    repeated: np.ndarray,
) -> np.ndarray:
    """Return the order of an epoch in which every process reads its own run of shards.

    shards: (N,) shard of each utterance. buffer_size: utterances among which a process draws the
    next one, >= 1. repeated: utterances that occur once more.
    Returns: positions; those of process r are every ``world_size``-th from r. All processes have
    the same number, but for one: the runs are cut between utterances, and at most
    ``world_size - 1`` shards are read by two processes.
    """
    rng = np.random.default_rng((seed, epoch))
    rank_of_shard = rng.permutation(int(shards.max()) + 1)
    sequence = np.argsort(rank_of_shard[shards], kind="stable")
    counts = 1 + np.bincount(repeated, minlength=len(shards))
    shares = np.array_split(np.repeat(sequence, counts[sequence]), world_size)
    streams = [
        _through_buffer(share, buffer_size, np.random.default_rng((seed, epoch, rank)))
        for rank, share in enumerate(shares)
    ]
    order = np.empty(sum(map(len, streams)), np.int64)
    for rank, stream in enumerate(streams):
        order[rank::world_size] = stream
    return order


def _through_buffer(items: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the items in the order in which they leave a shuffle buffer."""
    buffer, rest = items[:size].tolist(), items[size:].tolist()
    draws = rng.integers(len(buffer) or 1, size=len(rest)).tolist()
    left = []
    for place, item in zip(draws, rest, strict=True):
        left.append(buffer[place])
        buffer[place] = item
    return np.array([*left, *rng.permutation(buffer).tolist()], np.int64)


def _webdataset() -> ModuleType:
    try:
        return importlib.import_module("webdataset")
    except ModuleNotFoundError:
        raise ConfigError("shards need the package webdataset: pip install -e .[shards]") from None
