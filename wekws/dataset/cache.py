"""Features of a data list, extracted once and memory-mapped.

A cache is a directory: ``feats.npy`` (frames of all utterances end to end, then one row of
zeros that stands for padding), ``offsets.npy`` (first row of each utterance, then the end) and
``meta.json``. It is rebuilt whenever anything that its features depend on has changed.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wekws.dataset.extract import ExtractionPool, FeatureView, noise_files
from wekws.dataset.manifest import Utterance
from wekws.errors import DataError
from wekws.files import file_lock

log = logging.getLogger(__name__)

_CHUNK = 32
_MAX_NAMED = 10
_ROOM = 1.1  # Free disk space wanted over the estimate.


class FeatureCache:
    """Features of every utterance of one list under one view."""

    def __init__(self, directory: str | os.PathLike[str]):
        """Map a finished cache.

        Raises: DataError if its files do not belong together (a disk that was full, say).
        """
        self.directory = Path(directory)
        with open(self.directory / "meta.json", encoding="utf-8") as stream:
            self.meta: dict[str, Any] = json.load(stream)
        try:
            # A plain view of the map: np.memmap's own indexing costs ten times as much.
            self._feats = np.asarray(np.load(self.directory / "feats.npy", mmap_mode="r"))
            self._offsets = np.load(self.directory / "offsets.npy")
        except (ValueError, EOFError) as error:
            raise DataError(f"{self.directory}: not a whole cache ({error}); delete it") from None
        if len(self._offsets) == 0 or self._offsets[-1] + 1 != len(self._feats):
            raise DataError(f"{self.directory}: not a whole cache; delete it")
        self.num_frames: np.ndarray = np.diff(self._offsets)
        """(N,) frames of each utterance, 0 for one that could not be read."""

    @property
    def failures(self) -> dict[str, str]:
        """Utterances that could not be read, with the cause."""
        return self.meta["failures"]

    @property
    def frames(self) -> np.ndarray:
        """(all frames, F): every frame of every utterance."""
        return self._feats[:-1]

    def gather(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return (B, longest, F) features of the utterances at ``indices``, zero-padded."""
        index = padded_index(self._offsets, indices, padding=len(self._feats) - 1)
        # mode="clip": "raise" would copy through a buffer; the index is right by construction.
        return self._feats.take(index, axis=0, mode="clip", out=out)


def padded_index(offsets: np.ndarray, indices: np.ndarray, padding: int) -> np.ndarray:
    """Return (B, longest) row numbers of runs laid end to end, ``padding`` past each end."""
    starts, ends = offsets[indices], offsets[indices + 1]
    rows = starts[:, None] + np.arange((ends - starts).max(initial=0))
    return np.where(rows < ends[:, None], rows, padding)


def open_cache(
    directory: str | os.PathLike[str],
    utterances: Sequence[Utterance],
    view: FeatureView,
    num_workers: int = 0,
    max_bad_fraction: float = 0.01,
) -> FeatureCache:
    """Return the cache in ``directory``, built first if it is missing or out of date.

    Several processes may ask for the same one: the first builds, the others wait for it.
    Raises: DataError if more than max_bad_fraction of the utterances cannot be read, or all.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(directory.with_name(f".{directory.name}.lock")):
        fingerprint = cache_fingerprint(utterances, view)
        cache = _open_if_current(directory, fingerprint)
        if cache is None:
            with _new_directory(directory) as temporary:
                meta = _build(temporary, utterances, view, num_workers)
                _judge_failures(meta["failures"], len(utterances), max_bad_fraction)
                _write_meta(temporary, meta | {"fingerprint": fingerprint})
            return FeatureCache(directory)
    _judge_failures(cache.failures, len(utterances), max_bad_fraction)
    return cache


def cache_fingerprint(utterances: Sequence[Utterance], view: FeatureView) -> str:
    """Return a hash of all that the features depend on; files count by size and time."""
    digest = hashlib.sha256(json.dumps(view.identity(), sort_keys=True).encode())
    if view.augment is not None and view.augment.noise_prob > 0 and view.augment.noise_dir:
        for path in noise_files(view.augment.noise_dir):
            digest.update(_file_line(str(path), ""))
    for utterance in utterances:
        digest.update(_file_line(utterance.wav, utterance.key))
    return digest.hexdigest()


def _file_line(path: str, key: str) -> bytes:
    try:
        status = os.stat(path)
    except OSError:
        return f"{key}\0{path}\0missing\n".encode()
    return f"{key}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()


def _open_if_current(directory: Path, fingerprint: str) -> FeatureCache | None:
    if not directory.is_dir():
        return None
    try:
        cache = FeatureCache(directory)
    except (DataError, OSError, json.JSONDecodeError) as error:
        log.warning("feature cache %s is damaged, building it anew: %s", directory, error)
        return None
    if cache.meta.get("fingerprint") != fingerprint:
        log.info("feature cache %s: list, audio or settings have changed", directory)
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


def _build(
    directory: Path, utterances: Sequence[Utterance], view: FeatureView, num_workers: int
) -> dict[str, Any]:
    """Extract everything into ``directory``; returns what belongs into the meta file."""
    _check_disk_space(directory, utterances, view)
    started = time.monotonic()
    num_frames, failures, conversions = [], {}, {}
    num_bins = view.front_end.num_mel_bins
    with (
        open(directory / "feats.npy", "wb") as stream,
        one_torch_thread(),
        ExtractionPool(utterances, view, num_workers) as pool,
        tqdm(total=len(utterances), desc="features", unit="utt", disable=None) as bar,
    ):
        _write_header(stream, 0, num_bins)
        for part in pool.map(range(len(utterances)), view.copy, _CHUNK):
            stream.write(part.feats.data)
            num_frames += part.num_frames
            failures |= part.failures
            for kind, count in part.conversions.items():
                conversions[kind] = conversions.get(kind, 0) + count
            bar.update(len(part.num_frames))
        stream.write(np.zeros(num_bins, np.float32).data)
        stream.seek(0)
        _write_header(stream, sum(num_frames) + 1, num_bins)
    np.save(directory / "offsets.npy", np.cumsum([0, *num_frames], dtype=np.int64))
    _log_build(directory, len(utterances), sum(num_frames), conversions, started)
    return {"view": view.identity(), "failures": failures, "conversions": conversions}


def _write_header(stream, num_rows: int, num_bins: int) -> None:
    """Write a .npy header, as long for no rows as for all: numpy leaves room to grow."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, num_bins)}
    np.lib.format.write_array_header_1_0(stream, header)


def _write_meta(directory: Path, meta: dict[str, Any]) -> None:
    with open(directory / "meta.json", "w", encoding="utf-8") as stream:
        json.dump(meta, stream, ensure_ascii=False, indent=1)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread: the same sums whatever the machine, and no fight for cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _check_disk_space(directory: Path, utterances: Sequence[Utterance], view: FeatureView) -> None:
    slowest = min(view.augment.speeds) if view.augment is not None else 1.0
    seconds = sum(utterance.duration for utterance in utterances) / slowest
    needed = (
        seconds * 1000 / view.front_end.frame_shift_ms * view.front_end.num_mel_bins * 4 * _ROOM
    )
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{directory.parent}: {free / 2**30:.1f} GiB free; the features of {seconds / 3600:.1f}"
            f" hours need {needed / 2**30:.1f} GiB; free some or name another --cache_dir"
        )


def _log_build(directory, num_utterances, num_frames, conversions, started) -> None:
    seconds = time.monotonic() - started
    rate = num_utterances / max(seconds, 1e-9)
    log.info(
        "feature cache %s: %d utterances, %d frames in %.0f s (%.0f utt/s)",
        *(directory.parent, num_utterances, num_frames, seconds, rate),
    )
    for kind, count in sorted(conversions.items()):
        log.info("%d of %d utterances were %s", count, num_utterances, kind)


def _judge_failures(failures: dict[str, str], num_utterances: int, max_bad_fraction: float) -> None:
    if not failures:
        return
    for key, cause in list(failures.items())[:_MAX_NAMED]:
        log.warning("utterance %s is left out: %s", key, cause)
    if len(failures) > _MAX_NAMED:
        log.warning("... and %d more", len(failures) - _MAX_NAMED)
    if len(failures) == num_utterances or len(failures) > max_bad_fraction * num_utterances:
        key, cause = next(iter(failures.items()))
        raise DataError(
            f"{len(failures)} of {num_utterances} utterances cannot be used (allowed:"
            f" max_bad_fraction {max_bad_fraction:g}); first {key}: {cause}"
        )
