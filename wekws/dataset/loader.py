"""Data sets and their padded batches, made with array operations, not utterance by utterance.

Axes: N utterances of the data set, K keywords, B batch, T frames of 10 ms, F mel bins, L labels.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from wekws.dataset.batch import Batch as Batch
from wekws.dataset.cache import FeatureCache, cache_path, open_cache, padded_index
from wekws.dataset.dataset_conf import BatchConfig as BatchConfig
from wekws.dataset.dataset_conf import DatasetConfig as DatasetConfig
from wekws.dataset.dataset_conf import FilterConfig as FilterConfig
from wekws.dataset.embeddings import EmbeddingSet, open_embeddings
from wekws.dataset.extract import ExtractionPool, Extractor, FeatureView
from wekws.dataset.filters import filter_reasons, keep_share, report_left_out
from wekws.dataset.join import choose_partners, join_batches
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import Utterance, audio_status, read_data_list
from wekws.dataset.order import plan_batches
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


class SpeechDataset:
    """The usable utterances of a data list with features and labels; see ``open_dataset``."""

    def __init__(
        self,
        *,
        config: DatasetConfig,
        label_set: LabelSet,
        keys: Sequence[str],
        labels: Sequence[Sequence[int]],
        holds_keyword: npt.NDArray[np.bool_],
        caches: Sequence[FeatureCache],
        cache_rows: npt.NDArray[np.int64],
        join_prob: float = 0.0,
        seed: int = 0,
        pool: ExtractionPool | None = None,
        views: Sequence[FeatureView] = (),
        embeddings: EmbeddingSet | None = None,
        durations_s: npt.NDArray[np.float64] | None = None,
        num_listed: int = 0,
        audio: str = "",
    ) -> None:
        """Build the data set from its parts.

        keys: ids of N utterances.
        labels: label ids per utterance.
        holds_keyword: (N, K), whether the transcript contains each keyword of the label set.
        caches: feature caches, one per augmented copy.
        cache_rows: (N,), position of each utterance in every cache.
        join_prob: share of utterances that are followed by another one, 0 to 1.
        seed: chooses the joined utterances.
        pool: extracts the features in every epoch; None: they come from the caches.
        views: those of the caches, or the one that ``pool`` augments; only for ``embeddings``.
        embeddings: outputs of a feature teacher, with one row per row of the caches; None: none.
        durations_s: (N,) length of each utterance in the list; None: unknown.
        num_listed: utterances of the list, usable or not.
        audio: hash of names, sizes and times of the list's audio files; empty: unknown.
        """
        self.durations_s, self.num_listed, self.audio = durations_s, num_listed, audio
        self.config, self.label_set = config, label_set
        self.keys, self.labels = list(keys), list(labels)
        self.holds_keyword = holds_keyword
        self.is_keyword: npt.NDArray[np.bool_] = np.asarray(holds_keyword.any(axis=1))
        self.caches = list(caches)
        self._cache_rows = cache_rows
        self._label_offsets = np.cumsum([0, *map(len, self.labels)])
        self._flat_labels = np.array([*itertools.chain(*self.labels), 0], np.int64)
        self._join_prob, self._seed, self._pool = join_prob, seed, pool
        self._views, self.embeddings = tuple(views), embeddings
        self.repeated: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Positions of the utterances that occur once more in each epoch."""

    def __len__(self) -> int:
        """Return the number of usable utterances."""
        return len(self.keys)

    @property
    def fingerprint(self) -> str:
        """Hash (16 hexadecimal digits) of the utterances' keys and labels, in their order."""
        text = json.dumps([self.keys, self.labels])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def num_frames(self) -> np.ndarray:
        """Frames of each utterance in the first cached copy, (N,)."""
        return self.frames_in(0)

    def frames_in(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance in an epoch, (N,); before a speed change online."""
        return self._cache(epoch).num_frames[self._cache_rows]

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        epoch: int = 0,
        *,
        num_global: int | None = None,
    ) -> Batch:
        """Return the utterances at ``indices`` with their features of ``epoch``.

        num_global: utterances of this step in all processes; None: those of this batch.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        batch = self._single_batch(chosen, epoch, num_global)
        if self._join_prob == 0:
            return batch
        partners = choose_partners(
            len(self), join_prob=self._join_prob, seed=self._seed, epoch=epoch
        )[chosen]
        rows = np.flatnonzero(partners >= 0)
        if len(rows) == 0:
            return batch
        return join_batches(
            batch,
            rows=rows,
            second=self._single_batch(partners[rows], epoch, None),
            frame_skip=self.config.frame_skip,
            max_labels=self.config.filter_conf.max_label_length,
        )

    def _single_batch(self, indices: np.ndarray, epoch: int, num_global: int | None) -> Batch:
        """Return a batch of utterances that are not joined."""
        feats, feat_lengths = self._features(self._cache_rows[indices], epoch)
        embeddings = None
        if self.embeddings is not None:
            speeds = np.array([self._speed(self.keys[i], epoch) for i in indices])
            rows = self._cache_rows[indices]
            embeddings = self.embeddings.gather(rows, speeds, self.config.front_end)
        label_index = padded_index(self._label_offsets, indices, len(self._flat_labels) - 1)
        if label_index.shape[1] == 0:
            label_index = np.full((len(indices), 1), len(self._flat_labels) - 1)
        return Batch(
            keys=[self.keys[i] for i in indices],
            feats=torch.from_numpy(feats),
            feat_lengths=torch.from_numpy(feat_lengths),
            labels=torch.from_numpy(self._flat_labels[label_index]),
            label_lengths=torch.from_numpy(np.diff(self._label_offsets)[indices]),
            holds_keyword=torch.from_numpy(self.holds_keyword[indices]),
            indices=torch.from_numpy(indices),
            num_global=len(indices) if num_global is None else num_global,
            embeddings=embeddings,
        )

    def _speed(self, key: str, epoch: int) -> float:
        """Return how many times as fast as the recording an utterance is in an epoch."""
        if self._pool is not None:
            return self._views[0].speed(key, epoch)
        view = self._views[epoch % len(self._views)]
        return view.speed(key, view.copy)

    def close(self) -> None:
        """End the processes that augment online, if there are any."""
        if self._pool is not None:
            self._pool.close()

    def _cache(self, epoch: int) -> FeatureCache:
        return self.caches[epoch % len(self.caches)]

    def _features(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self._pool is None:
            cache = self._cache(epoch)
            return cache.gather(rows), cache.num_frames[rows]
        parts = self._pool.extract_now(rows.tolist(), epoch)
        for key, cause in itertools.chain(*(part.failures.items() for part in parts)):
            raise DataError(f"utterance {key} was readable before: {cause}")
        lengths = np.array([n for part in parts for n in part.num_frames], np.int64)
        frames = np.concatenate(
            [*(part.feats for part in parts), np.zeros_like(parts[0].feats[:1])]
        )
        index = padded_index(np.cumsum([0, *lengths]), np.arange(len(rows)), len(frames) - 1)
        return frames[index], lengths


def open_dataset(
    data_list: str | os.PathLike[str],
    config: DatasetConfig,
    label_set: LabelSet,
    *,
    cache_dir: str | os.PathLike[str],
    is_training: bool,
    seed: int = 0,
    num_workers: int = 0,
    use_filters: bool = True,
    longest_s: float = math.inf,
    feature_teacher: str = "",
) -> SpeechDataset:
    """Read a data list, open or build its feature caches, leave out unusable utterances.

    is_training: dither, waveform augmentation and joined utterances are on.
    seed: for joined utterances and online augmentation; cached copies use augment_conf.seed.
    num_workers: processes that extract features; 0: this one.
    use_filters: False keeps every readable utterance; for scoring, where long recordings and
        labels without a CTC path do no harm.
    longest_s: longer utterances are no part of the data set, and their audio is not read.
    feature_teacher: see ``load_feature_teacher``; its outputs are cached and part of each batch.
        Empty: none.
    Raises: DataError if too much audio is unreadable or no utterance is left.
    """
    utterances = [u for u in read_data_list(data_list) if u.duration <= longest_s]
    if is_training:
        config.warn_about_unused_settings()
    views = config.cached_views(is_training)
    caches = open_caches(
        data_list,
        utterances,
        views=views,
        cache_dir=cache_dir,
        num_workers=num_workers,
        max_bad_fraction=config.max_bad_fraction,
    )
    labels, holds_keyword = _read_texts(utterances, label_set)
    shortest, longest = _frame_ranges(caches, config, is_training)
    reasons = filter_reasons(
        config=config,
        labels=labels,
        shortest=shortest,
        longest=longest,
        use_filters=use_filters,
        is_training=is_training,
    )
    if is_training:
        reasons = keep_share(
            reasons,
            share=config.filter_conf.data_share,
            keys=[utterance.key for utterance in utterances],
            is_keyword=[any(row) for row in holds_keyword.tolist()],
        )
    report_left_out(data_list, utterances, reasons)
    kept = np.flatnonzero([reason is None for reason in reasons])
    pool = None
    if is_training and config.is_online:
        view = dataclasses.replace(config.view(is_training), augment=config.augmentation, seed=seed)
        views = [view]
        pool = ExtractionPool(functools.partial(Extractor, utterances, view), num_workers)
    embeddings = None
    if feature_teacher:
        embeddings = open_embeddings(
            data_list,
            utterances,
            teacher_name=feature_teacher,
            cache_dir=cache_dir,
            num_workers=num_workers,
            max_bad_fraction=config.max_bad_fraction,
        )
    return SpeechDataset(
        config=config,
        label_set=label_set,
        keys=[utterances[i].key for i in kept],
        labels=[labels[i] for i in kept],
        holds_keyword=holds_keyword[kept],
        caches=caches,
        cache_rows=kept,
        join_prob=config.join_prob if is_training else 0.0,
        seed=seed,
        pool=pool,
        views=views,
        embeddings=embeddings,
        durations_s=np.array([utterances[i].duration for i in kept]),
        num_listed=len(utterances),
        audio="" if is_training else audio_status(utterances),
    )


def _frame_ranges(
    caches: Sequence[FeatureCache], config: DatasetConfig, is_training: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the fewest and the most frames that each utterance can have in any epoch, (N,)."""
    counts = np.stack([cache.num_frames for cache in caches])
    shortest, longest = counts.min(axis=0), counts.max(axis=0)
    augmentation = config.augmentation
    if augmentation is None or not (is_training and config.is_online):
        return shortest, longest
    # Audio with n frames is at least n - 1 hops plus one window long, and less than one hop
    # longer.
    hop_ms, window_ms = config.fbank_conf.frame_shift, config.fbank_conf.frame_length
    fewest_ms = ((shortest - 1) * hop_ms + window_ms) / max(augmentation.speeds) - window_ms
    most_ms = (longest * hop_ms + window_ms) / min(augmentation.speeds) - window_ms
    fewest = np.floor(fewest_ms / (hop_ms * max(augmentation.tempos))).astype(int) + 1
    most = np.floor(most_ms / (hop_ms * min(augmentation.tempos))).astype(int) + 1
    return np.where(shortest > 0, fewest.clip(min=0), 0), most


def open_caches(
    data_list: str | os.PathLike[str],
    utterances: Sequence[Utterance],
    *,
    views: Sequence[FeatureView],
    cache_dir: str | os.PathLike[str],
    num_workers: int,
    max_bad_fraction: float,
) -> list[FeatureCache]:
    """Return the feature caches of a list, one per view; missing ones are built.

    Where a cache lies, see ``cache_path``.
    """
    caches = []
    for view in views:
        cache = open_cache(
            cache_path(cache_dir, data_list, view.identity()),
            utterances,
            view,
            num_workers=num_workers,
            max_bad_fraction=max_bad_fraction,
        )
        caches.append(cache)
    return caches


def batches(
    dataset: SpeechDataset,
    *,
    batch_size: int,
    epoch: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    shuffle: bool = False,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield this process's share of each batch of an epoch; a thread makes the next one.

    batch_size: utterances of one step, all processes together; process ``rank`` takes every
    ``world_size``-th of them, beginning at its rank.
    """

    def make(indices: np.ndarray) -> Batch:
        batch = dataset.batch(indices[rank::world_size], epoch, num_global=len(indices))
        return batch.pin_memory() if pin_memory else batch

    plan = epoch_plan(
        dataset,
        batch_size=batch_size,
        epoch=epoch,
        seed=seed,
        world_size=world_size,
        shuffle=shuffle,
    )
    return _prefetch(make, plan)


def epoch_plan(
    dataset: SpeechDataset,
    *,
    batch_size: int,
    epoch: int = 0,
    seed: int = 0,
    world_size: int = 1,
    shuffle: bool = False,
) -> list[np.ndarray]:
    """Return the global batches of an epoch as indices; the length is the number of steps."""
    conf = dataset.config.batch_conf
    return plan_batches(
        dataset.frames_in(epoch),
        batch_size=batch_size,
        epoch=epoch,
        seed=seed,
        shuffle=shuffle,
        repeated=dataset.repeated,
        is_negative=~dataset.is_keyword if shuffle else None,
        negative_share=conf.negative_share,
        batching=conf.batching,
        pool_batches=conf.pool_batches,
        world_size=world_size,
    )


def _prefetch(make: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield make(item) for each item while a thread makes the next one.

    If the consumer stops early, or either side raises, the thread is waited for and ended.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        pending: Future[Result] | None = None
        for item in items:
            following = thread.submit(make, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def _read_texts(
    utterances: Sequence[Utterance], label_set: LabelSet
) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
    """Return the label ids of each utterance, and whether it contains each keyword, (N, K).

    Utterances with the same text share one list of label ids.
    """
    pairs = list(zip(label_set.keywords, label_set.keyword_ids, strict=True))
    known: dict[object, tuple[list[int], list[bool]]] = {}
    rows = []
    for utterance in utterances:
        text = (utterance.txt, utterance.tok)
        row = known.get(text)
        if row is None:
            held = [_has_keyword(utterance, *pair) for pair in pairs]
            row = known[text] = (label_set.encode_utterance(utterance), held)
        rows.append(row)
    holds_keyword = np.array([held for _, held in rows], bool)
    return [labels for labels, _ in rows], holds_keyword.reshape(len(rows), len(pairs))


def _has_keyword(utterance: Utterance, keyword: str, keyword_ids: Sequence[int]) -> bool:
    if isinstance(utterance.txt, str):
        return contains_keyword(utterance.txt, keyword)
    ids, wanted = list(utterance.txt), list(keyword_ids)
    return any(ids[i : i + len(wanted)] == wanted for i in range(len(ids) - len(wanted) + 1))
