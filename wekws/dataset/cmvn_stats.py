"""CMVN statistics: mean and variance of the training features, in WeKWS's JSON format."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from wekws.dataset.cache import FeatureCache, one_torch_thread
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.extract import ExtractionPool, Extractor
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.filters import without_long
from wekws.dataset.manifest import Utterance, read_data_list
from wekws.dataset.opening import open_caches
from wekws.dataset.sources import FailureCount
from wekws.errors import DataError
from wekws.files import atomic_path

_CHUNK_FRAMES = 1 << 15
_CHUNK_UTTERANCES = 32


@dataclass(frozen=True, kw_only=True)
class CmvnStats:
    """Sums over frames, float64, under WeKWS's names."""

    mean_stat: np.ndarray
    """(F,) sum of the features."""
    var_stat: np.ndarray
    """(F,) sum of the squared features."""
    frame_num: int
    """Number of frames, > 0."""

    @property
    def mean(self) -> np.ndarray:
        """Mean of each feature, (F,)."""
        return self.mean_stat / self.frame_num

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each feature, (F,)."""
        variance = self.var_stat / self.frame_num - self.mean**2
        return np.sqrt(np.maximum(variance, 0))


def compute_cmvn(
    data_list: str | os.PathLike[str],
    config: DatasetConfig,
    *,
    cache_dir: str | os.PathLike[str],
    num_workers: int = 0,
) -> CmvnStats:
    """Return the statistics of the features that training on a list will use.

    They are computed from the training caches (all augmented copies, or without copies the audio
    with dither), which are built if needed and which training then reuses; where the configuration
    has no cache, from the audio with dither. Long recordings that training leaves out are left out
    here too, see ``without_long``.
    num_workers: processes that extract features; 0: this one.
    Raises: DataError if too much audio is unreadable, or naming an utterance whose features are
    not finite.
    """
    utterances = without_long(data_list, read_data_list(data_list), config)
    if config.cache == "none":
        view = config.online_view(False, 0)
        view = dataclasses.replace(view, dither=config.fbank_conf.dither)
        return _audio_stats(utterances, view, num_workers, config.max_bad_fraction)
    caches = open_caches(
        data_list,
        utterances,
        views=config.cached_views(is_training=True),
        cache_dir=cache_dir,
        num_workers=num_workers,
        max_bad_fraction=config.max_bad_fraction,
    )
    stats = cache_stats(caches, num_threads=max(1, num_workers))
    if not (np.isfinite(stats.mean_stat).all() and np.isfinite(stats.var_stat).all()):
        utterance = utterances[_first_non_finite(caches)]
        raise DataError(
            f"{data_list}: the features of utterance {utterance.key} are not finite; correct or"
            f" remove {utterance.wav}"
        )
    return stats


def _audio_stats(
    utterances: Sequence[Utterance], view: FeatureView, num_workers: int, max_bad_fraction: float
) -> CmvnStats:
    """Return sums over features that are not kept; utterances with bad features are left out."""
    failures = FailureCount(len(utterances), max_bad_fraction)
    mean_stat, var_stat = np.zeros((2, view.front_end.num_mel_bins))
    frame_num = 0
    make_extractor = functools.partial(Extractor, list(utterances), view, is_kept=False)
    with one_torch_thread(), ExtractionPool(make_extractor, num_workers) as pool:
        for part in pool.map(range(len(utterances)), 0, _CHUNK_UTTERANCES):
            failures.add(part)
            first, second = _sums(part.feats)
            mean_stat, var_stat = mean_stat + first, var_stat + second
            frame_num += len(part.feats)
    if frame_num == 0:
        raise DataError("no frames to compute CMVN statistics from")
    return CmvnStats(mean_stat=mean_stat, var_stat=var_stat, frame_num=frame_num)


def _first_non_finite(caches: Iterable[FeatureCache]) -> int:
    """Return the index of the first utterance with features that are not finite."""
    for cache in caches:
        bad_frames = np.flatnonzero(~np.isfinite(cache.frames).all(axis=1))
        if len(bad_frames):
            return int(np.searchsorted(np.cumsum(cache.num_frames), bad_frames[0], side="right"))
    raise AssertionError("the sums of finite features are finite in float64")


def cache_stats(caches: Iterable[FeatureCache], *, num_threads: int = 1) -> CmvnStats:
    """Return sums over all frames of some caches; the number of threads does not change them.

    Raises: DataError if there is no frame.
    """
    chunks = [
        cache.frames[i : i + _CHUNK_FRAMES]
        for cache in caches
        for i in range(0, len(cache.frames), _CHUNK_FRAMES)
    ]
    if not chunks:
        raise DataError("no frames to compute CMVN statistics from")
    with ThreadPoolExecutor(num_threads) as threads:
        sums = list(threads.map(_sums, chunks))
    return CmvnStats(
        mean_stat=np.sum([first for first, _ in sums], axis=0),
        var_stat=np.sum([second for _, second in sums], axis=0),
        frame_num=sum(map(len, chunks)),
    )


def _sums(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = frames.astype(np.float64)
    first = frames.sum(axis=0)
    return first, np.square(frames, out=frames).sum(axis=0)


def write_cmvn(path: str | os.PathLike[str], stats: CmvnStats) -> None:
    """Write WeKWS's JSON with ``mean_stat``, ``var_stat`` (sums) and ``frame_num``."""
    record = {
        "mean_stat": stats.mean_stat.tolist(),
        "var_stat": stats.var_stat.tolist(),
        "frame_num": stats.frame_num,
    }
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        json.dump(record, stream)
        stream.write("\n")
