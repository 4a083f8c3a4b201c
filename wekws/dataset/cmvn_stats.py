"""Mean and variance of the training features, as WeKWS's ``global_cmvn`` file."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from wekws.dataset.cache import FeatureCache
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.loader import open_caches
from wekws.dataset.manifest import read_data_list
from wekws.errors import DataError
from wekws.files import atomic_path

_CHUNK_FRAMES = 1 << 15


@dataclass(frozen=True)
class CmvnStats:
    """Sums over frames, float64."""

    mean_stat: np.ndarray
    """(F,) sum."""
    var_stat: np.ndarray
    """(F,) sum of squares."""
    frame_num: int

    @property
    def mean(self) -> np.ndarray:
        """(F,) mean."""
        return self.mean_stat / self.frame_num

    @property
    def std(self) -> np.ndarray:
        """(F,) standard deviation."""
        variance = self.var_stat / self.frame_num - self.mean**2
        return np.sqrt(np.maximum(variance, 0))


def compute_cmvn(
    data_list: str | os.PathLike[str],
    config: DatasetConfig,
    cache_dir: str | os.PathLike[str],
    num_workers: int = 0,
) -> CmvnStats:
    """Return the statistics of what training on a list will see.

    They are taken over the training caches (all augmented copies; without copies, the audio
    with dither), which training then finds ready.
    Raises: DataError as the caches do.
    """
    caches = open_caches(
        *(data_list, read_data_list(data_list), config.cached_views(is_training=True)),
        *(cache_dir, num_workers, config.max_bad_fraction),
    )
    return cache_stats(caches, max(1, num_workers))


def cache_stats(caches: Iterable[FeatureCache], num_threads: int = 1) -> CmvnStats:
    """Return sums over every frame of some caches; the same whatever the number of threads.

    Raises: DataError if there is no frame.
    """
    chunks = [
        cache.frames[i : i + _CHUNK_FRAMES]
        for cache in caches
        for i in range(0, len(cache.frames), _CHUNK_FRAMES)
    ]
    if not chunks:
        raise DataError("no frames to take CMVN statistics of")
    with ThreadPoolExecutor(num_threads) as threads:
        sums = list(threads.map(_sums, chunks))
    return CmvnStats(
        np.sum([first for first, _ in sums], axis=0),
        np.sum([second for _, second in sums], axis=0),
        sum(map(len, chunks)),
    )


def _sums(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = frames.astype(np.float64)
    first = frames.sum(axis=0)
    return first, np.square(frames, out=frames).sum(axis=0)


def write_cmvn(path: str | os.PathLike[str], stats: CmvnStats) -> None:
    """Write WeKWS's JSON: ``mean_stat``, ``var_stat`` (sums) and ``frame_num``."""
    record = {
        "mean_stat": stats.mean_stat.tolist(),
        "var_stat": stats.var_stat.tolist(),
        "frame_num": stats.frame_num,
    }
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        json.dump(record, stream)
        stream.write("\n")
