"""Features of a data list, extracted once and memory-mapped.

A cache is a directory: ``feats.npy`` (frames of all utterances end to end, then one row of
zeros for padding), ``offsets.npy`` (first row of each utterance, then the end) and
``meta.json``. It is rebuilt when anything that its features depend on has changed.
"""

import collections
import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from tqdm import tqdm

from wekws.dataset.audio import audio_files
from wekws.dataset.extract import ChunkExtractor, ExtractionPool, Extractor, background_recordings
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.manifest import Utterance, audio_lines, file_line
from wekws.errors import DataError
from wekws.files import file_lock, named_in_errors

logger = logging.getLogger(__name__)

_CHUNK = 32
_MAX_NAMED = 10
# Free disk space that must be there, as a multiple of the estimated size.
_DISK_MARGIN = 1.1


class FeatureCache:
    """Features of every utterance of one list under one view."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Map a finished cache into memory.

        Raises: DataError if its files do not fit together (after a full disk, for example).
        """
        self.directory = Path(directory)
        with open(self.directory / "meta.json", encoding="utf-8") as stream:
            self.meta: dict[str, Any] = json.load(stream)
        try:
            # A plain array on the mapped memory: indexing an np.memmap costs ten times as much.
            self._feats = np.asarray(np.load(self.directory / "feats.npy", mmap_mode="r"))
            self._offsets = np.load(self.directory / "offsets.npy")
        except (ValueError, EOFError) as error:
            raise DataError(f"{self.directory}: incomplete cache ({error}); delete it") from None
        if len(self._offsets) == 0 or self._offsets[-1] + 1 != len(self._feats):
            raise DataError(f"{self.directory}: incomplete cache; delete it")
        self.num_frames: np.ndarray = np.diff(self._offsets)
        """(N,) frames per utterance, 0 for one that could not be read."""

    @property
    def failures(self) -> dict[str, str]:
        """Cause by key of every utterance that could not be read."""
        return self.meta["failures"]

    @property
    def audio_fingerprint(self) -> str:
        """Hash of the content of all audio files; empty for a cache of an earlier version."""
        return str(self.meta.get("audio", ""))

    @property
    def frames(self) -> np.ndarray:
        """All frames of all utterances, (total frames, F)."""
        return self._feats[:-1]

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, longest, F) float32 features of the utterances at ``indices``, zero-padded."""
        index = padded_index(self._offsets, indices, padding=len(self._feats) - 1)
        # mode="clip": "raise" would copy through a buffer, and all indices are in range here.
        return self._feats.take(index, axis=0, mode="clip").astype(np.float32, copy=False)


def padded_index(offsets: np.ndarray, indices: np.ndarray, padding: int) -> np.ndarray:
    """Return row numbers of B sequences stored end to end, (B, longest).

    offsets: first row of each sequence, then the end. padding: row number past each end.
    """
    starts, ends = offsets[indices], offsets[indices + 1]
    rows = starts[:, None] + np.arange((ends - starts).max(initial=0))
    return np.where(rows < ends[:, None], rows, padding)


@dataclass(frozen=True, kw_only=True)
class CacheContent:
    """Content of a cache and the way to compute it."""

    identity: dict[str, Any]
    """All settings that the features depend on, as plain values."""
    fingerprint: str
    """Hash of the settings and of every file that the features are made of."""
    num_values: int
    """Numbers per frame."""
    expected_frames: float
    """About how many frames there will be, for the check of free disk space."""
    num_utterances: int
    """Utterances of the list."""
    make_extractor: Callable[[], ChunkExtractor]
    """Makes what computes the features; called in every process."""
    copy: int = 0
    """Number of the augmented copy."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format on disk."""


def open_cache(
    directory: str | os.PathLike[str],
    utterances: Sequence[Utterance],
    view: FeatureView,
    *,
    num_workers: int = 0,
    max_bad_fraction: float = 0.01,
) -> FeatureCache:
    """Return the cache in ``directory``, built first if it is missing or out of date.

    Several processes may open the same cache: the first one builds it, the others wait.
    num_workers: processes that extract features; 0: this one.
    Raises: DataError if more than max_bad_fraction of the utterances cannot be read, or all.
    """
    slowest = min(view.augment.speeds) if view.augment is not None else 1.0
    seconds = sum(utterance.duration for utterance in utterances) / slowest
    content = CacheContent(
        identity=view.identity(),
        fingerprint=cache_fingerprint(utterances, view),
        num_values=view.front_end.num_mel_bins,
        expected_frames=seconds * 1000 / view.front_end.frame_shift_ms,
        num_utterances=len(utterances),
        make_extractor=functools.partial(Extractor, list(utterances), view),
        copy=view.copy,
        storage=view.storage,
    )
    return open_or_build(
        directory, content, num_workers=num_workers, max_bad_fraction=max_bad_fraction
    )


def open_or_build(
    directory: str | os.PathLike[str],
    content: CacheContent,
    *,
    num_workers: int,
    max_bad_fraction: float,
) -> FeatureCache:
    """Return a cache of this content, see ``open_cache``."""
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(directory.with_name(f".{directory.name}.lock")):
        cache = _open_if_current(directory, content.fingerprint)
        if cache is None:
            with named_in_errors(directory), _new_directory(directory) as temporary:
                meta = _build(temporary, content, num_workers)
                _check_failures(meta["failures"], content.num_utterances, max_bad_fraction)
                _write_meta(temporary, meta | {"fingerprint": content.fingerprint})
            return FeatureCache(directory)
    _check_failures(cache.failures, content.num_utterances, max_bad_fraction)
    return cache


def cache_path(
    cache_dir: str | os.PathLike[str],
    data_list: str | os.PathLike[str],
    identity: dict[str, Any],
    *,
    kind: str = "",
) -> Path:
    """Return where a list's cache lies.

    Its name contains a hash of the list's path and of the settings: caches with different settings
    exist side by side. All other changes rebuild the cache in its place.
    kind: joins the name, for what is not a filterbank.
    """
    path = Path(data_list).resolve()
    text = f"{path}\n{sorted(identity.items())}"
    suffix = hashlib.sha256(text.encode()).hexdigest()[:10]
    parts = (path.parent.name, path.stem, *([kind] if kind else []), suffix)
    return Path(cache_dir) / "_".join(parts)


def cache_fingerprint(utterances: Sequence[Utterance], view: FeatureView) -> str:
    """Return a hash of everything the features depend on; of a file, its size and time."""
    digest = hashlib.sha256(json.dumps(view.identity(), sort_keys=True).encode())
    for folder in view.augment.folders if view.augment is not None else []:
        for path in audio_files(folder):
            digest.update(file_line(str(path), ""))
    digest.update(audio_lines(utterances))
    if background := background_recordings(utterances, view.augment):
        digest.update(json.dumps(background).encode())
    return digest.hexdigest()


def _open_if_current(directory: Path, fingerprint: str) -> FeatureCache | None:
    if not directory.is_dir():
        return None
    try:
        cache = FeatureCache(directory)
    except (DataError, OSError, json.JSONDecodeError) as error:
        logger.warning("feature cache %s is damaged and is built again: %s", directory, error)
        return None
    if cache.meta.get("fingerprint") != fingerprint:
        logger.info(
            "feature cache %s is built again: the list, the audio or the settings have changed",
            directory,
        )
        return None
    return cache


@contextlib.contextmanager
def _new_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that replaces ``directory`` if the block succeeds."""
    prefix = f".{directory.name}.tmp-"
    for stale in directory.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(directory: Path, content: CacheContent, num_workers: int) -> dict[str, Any]:
    """Extract all features into ``directory``; return the content of ``meta.json``."""
    _check_disk_space(directory, content)
    started = time.monotonic()
    num_frames: list[int] = []
    failures: dict[str, str] = {}
    conversions: collections.Counter[str] = collections.Counter()
    num_values, num_utterances = content.num_values, content.num_utterances
    dtype = np.dtype(content.storage).newbyteorder("<")
    audio = hashlib.sha256()
    with (
        open(directory / "feats.npy", "wb") as stream,
        one_torch_thread(),
        ExtractionPool(content.make_extractor, num_workers) as pool,
        tqdm(total=num_utterances, desc="features", unit="utt", disable=None) as bar,
    ):
        _write_header(stream, dtype, 0, num_values)
        for part in pool.map(range(num_utterances), content.copy, _CHUNK):
            stream.write(part.feats.astype(dtype, copy=False).data)
            num_frames += part.num_frames
            audio.update(part.audio)
            failures |= part.failures
            conversions += part.conversions
            bar.update(len(part.num_frames))
        stream.write(np.zeros(num_values, dtype).data)
        stream.seek(0)
        _write_header(stream, dtype, sum(num_frames) + 1, num_values)
    np.save(directory / "offsets.npy", np.cumsum([0, *num_frames], dtype=np.int64))
    seconds = time.monotonic() - started
    logger.info(
        "feature cache %s: %d utterances, %d frames in %.0f s (%.0f utterances per second)",
        directory.parent,
        num_utterances,
        sum(num_frames),
        seconds,
        num_utterances / max(seconds, 1e-9),
    )
    for kind, count in sorted(conversions.items()):
        logger.info("%d of %d utterances were %s", count, num_utterances, kind)
    return {
        "view": content.identity,
        "failures": failures,
        "conversions": conversions,
        "audio": audio.hexdigest()[:16],
    }


def _write_header(stream: BinaryIO, dtype: np.dtype, num_rows: int, num_values: int) -> None:
    """Write a .npy header; numpy pads it, so it has the same size for any number of rows."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (num_rows, num_values)}
    np.lib.format.write_array_header_1_0(stream, header)


def _write_meta(directory: Path, meta: dict[str, Any]) -> None:
    with open(directory / "meta.json", "w", encoding="utf-8") as stream:
        json.dump(meta, stream, ensure_ascii=False, indent=1)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread: the same sums on any machine, no competition for cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _check_disk_space(directory: Path, content: CacheContent) -> None:
    num_bytes = np.dtype(content.storage).itemsize
    needed = content.expected_frames * content.num_values * num_bytes * _DISK_MARGIN
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{directory.parent}: {free / 2**30:.1f} GiB free; the features of"
            f" {content.num_utterances} utterances need {needed / 2**30:.1f} GiB; free some, name"
            " another --cache_dir, or set dataset_conf.cache to float16 or none"
        )


def _check_failures(failures: dict[str, str], num_utterances: int, max_bad_fraction: float) -> None:
    """Log the utterances that could not be read; refuse too many of them."""
    if not failures:
        return
    for key, cause in list(failures.items())[:_MAX_NAMED]:
        logger.warning("utterance %s is left out: %s", key, cause)
    if len(failures) > _MAX_NAMED:
        logger.warning("... and %d more utterances are left out", len(failures) - _MAX_NAMED)
    if len(failures) == num_utterances or len(failures) > max_bad_fraction * num_utterances:
        key, cause = next(iter(failures.items()))
        raise DataError(
            f"{len(failures)} of {num_utterances} utterances cannot be used (allowed:"
            f" max_bad_fraction {max_bad_fraction:g}); first {key}: {cause}"
        )
