"""Data sets and their padded batches, made with array operations, not utterance by utterance.

Axes: N utterances of the data set, K keywords, B batch, T frames of 10 ms, F mel bins, L labels.
"""

import collections
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from json.encoder import encode_basestring_ascii
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
from wekws.dataset.extract import ExtractionPool, Extractor
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.filters import filter_reasons, keep_share, report_left_out
from wekws.dataset.join import choose_partners, join_batches
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import (
    Utterance,
    audio_status,
    collector_paused,
    read_data_list,
)
from wekws.dataset.order import cut_batches, plan_batches
from wekws.dataset.shards import ShardSource, is_sharded, shard_order
from wekws.dataset.sources import (
    AudioSource,
    CacheSource,
    FeatureSource,
    frames_by_duration,
    sizes_fingerprint,
)
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import ConfigError, DataError

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
        source: FeatureSource,
        rows: npt.NDArray[np.int64],
        caches: Sequence[FeatureCache] = (),
        join_prob: float = 0.0,
        seed: int = 0,
        embeddings: EmbeddingSet | None = None,
        durations_s: npt.NDArray[np.float64] | None = None,
        num_listed: int = 0,
        audio: str = "",
    ) -> None:
        """Build the data set from its parts.

        keys: ids of N utterances.
        labels: label ids per utterance.
        holds_keyword: (N, K), whether the transcript contains each keyword of the label set.
        source: gives the features of the list's utterances.
        rows: (N,), position of each utterance in the list.
        caches: feature caches of the list, one per augmented copy; none where features are
            computed from audio in every epoch.
        join_prob: share of utterances that are followed by another one, 0 to 1.
        seed: chooses the joined utterances.
        embeddings: outputs of a feature teacher for the list's utterances; None: none.
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
        self._source, self._rows = source, rows
        num_labels = np.fromiter(map(len, self.labels), np.int64, len(self.labels))
        self._label_offsets = np.concatenate([[0], np.cumsum(num_labels)])
        flat = itertools.chain(itertools.chain.from_iterable(self.labels), [0])
        self._flat_labels = np.fromiter(flat, np.int64, self._label_offsets[-1] + 1)
        self._join_prob, self._seed = join_prob, seed
        self.embeddings = embeddings
        self.repeated: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Positions of the utterances that occur once more in each epoch."""

    def __len__(self) -> int:
        """Return the number of usable utterances."""
        return len(self.keys)

    @property
    def fingerprint(self) -> str:
        """Hash (16 hexadecimal digits) of the utterances' keys and labels, in their order."""
        # The text is json.dumps([keys, labels]); most labels are those of some other utterance.
        labels = {id(ids): str(ids) for ids in self.labels}
        digest = hashlib.sha256(b"[[")
        digest.update(", ".join(map(encode_basestring_ascii, self.keys)).encode())
        digest.update(b"], [")
        digest.update(", ".join([labels[id(ids)] for ids in self.labels]).encode())
        digest.update(b"]]")
        return digest.hexdigest()[:16]

    @property
    def num_frames(self) -> np.ndarray:
        """Frames of each utterance in the first epoch, (N,)."""
        return self.frames_in(0)

    def frames_in(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance in an epoch, (N,); before a speed change online."""
        return self._source.num_frames(epoch)[self._rows]

    @property
    def shards(self) -> npt.NDArray[np.int64] | None:
        """Number of each utterance's shard, (N,); None where the audio is in files of its own."""
        source = self._source
        return source.shards[self._rows] if isinstance(source, ShardSource) else None

    def start(self, indices: np.ndarray, epoch: int) -> None:
        """Announce the utterances of an epoch, in the order in which batches will hold them."""
        self._source.start(self._rows[indices], epoch)

    @property
    def audio_fingerprint(self) -> str:
        """Hash that tells the list's audio; empty: unknown."""
        return self._source.audio_fingerprint

    @property
    def num_ahead(self) -> int:
        """Batches that can be made at the same time."""
        return self._source.num_ahead

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        epoch: int = 0,
        *,
        places: np.ndarray | None = None,
        num_global: int | None = None,
    ) -> Batch:
        """Return the utterances at ``indices`` with their features of ``epoch``.

        places: (B,) places of these utterances in the step of all processes; None: 0 to B - 1.
        num_global: utterances of that step; None: those of this batch.
        Raises: DataError if none of them, or too few of the list, can be read.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if places is None:
            places = np.arange(len(chosen))
        batch = self._joined_batch(chosen, epoch, places, num_global)
        is_readable = batch.feat_lengths > 0
        if is_readable.all():
            return batch
        if not is_readable.any():
            raise DataError(f"no utterance of a batch can be read: {', '.join(batch.keys)}")
        return batch.select(is_readable)

    def _joined_batch(
        self, chosen: np.ndarray, epoch: int, places: np.ndarray, num_global: int | None
    ) -> Batch:
        batch = self._single_batch(chosen, epoch, places, num_global)
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
            second=self._single_batch(partners[rows], epoch, rows, None),
            frame_skip=self.config.frame_skip,
            max_labels=self.config.filter_conf.max_label_length,
        )

    def _single_batch(
        self, indices: np.ndarray, epoch: int, places: np.ndarray, num_global: int | None
    ) -> Batch:
        """Return a batch of utterances that are not joined."""
        feats, feat_lengths = self._source.features(self._rows[indices], epoch)
        embeddings = None
        if self.embeddings is not None:
            speeds = np.array([self._source.speed(self.keys[i], epoch) for i in indices])
            rows = self._rows[indices]
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
            places=torch.from_numpy(places),
            num_global=len(indices) if num_global is None else num_global,
            embeddings=embeddings,
        )

    def close(self) -> None:
        """End the processes that augment online, if there are any."""
        self._source.close()


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
    utterances: Sequence[Utterance] | None = None,
    feature_teacher: str = "",
) -> SpeechDataset:
    """Read a data list, open or build its feature caches, leave out unusable utterances.

    is_training: dither, waveform augmentation and joined utterances are on.
    seed: for joined utterances and online augmentation; cached copies use augment_conf.seed.
    num_workers: processes that extract features; 0: this one.
    use_filters: False keeps every readable utterance; for scoring, where long recordings and
        labels without a CTC path do no harm.
    utterances: those of the list to take, where it has been read already; None: all.
    feature_teacher: see ``load_feature_teacher``; its outputs are cached and part of each batch.
        Empty: none.
    Raises: DataError if too much audio is unreadable or no utterance is left.
    """
    if utterances is None:
        utterances = read_data_list(data_list)
    sharded = is_sharded(utterances)
    if is_training:
        config.warn_about_unused_settings(is_sharded=sharded)
    if sharded:
        _require_streamable(data_list, config, is_training, feature_teacher)
    caches = open_caches(
        data_list,
        utterances,
        views=[] if sharded else config.cached_views(is_training),
        cache_dir=cache_dir,
        num_workers=num_workers,
        max_bad_fraction=config.max_bad_fraction,
    )
    counts = [cache.num_frames for cache in caches]
    if not caches:
        counts = [frames_by_duration(utterances, config.front_end)]
    labels, holds_keyword = _read_texts(utterances, label_set)
    is_online = is_training and (config.is_online or not caches)
    shortest, longest = _frame_ranges(counts, config, is_online)
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
            is_keyword=np.asarray(holds_keyword.any(axis=1)),
        )
    report_left_out(data_list, utterances, reasons)
    kept = np.flatnonzero([reason is None for reason in reasons])
    source: FeatureSource
    if sharded:
        source = ShardSource(
            utterances,
            config.online_view(is_training, seed),
            num_workers=num_workers,
            num_frames=counts[0],
            max_bad_fraction=config.max_bad_fraction,
        )
    elif not is_online and caches:
        source = CacheSource(caches, config.cached_views(is_training))
    else:
        view = config.online_view(is_training, seed)
        source = AudioSource(
            ExtractionPool(
                functools.partial(Extractor, utterances, view, is_kept=False), num_workers
            ),
            view,
            num_frames=counts[0],
            audio_fingerprint=(
                caches[0].audio_fingerprint if caches else sizes_fingerprint(utterances)
            ),
            max_bad_fraction=config.max_bad_fraction,
        )
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
        keys=[utterances[i].key for i in kept.tolist()],
        labels=[labels[i] for i in kept],
        holds_keyword=holds_keyword[kept],
        source=source,
        rows=kept,
        caches=caches,
        join_prob=config.join_prob if is_training else 0.0,
        seed=seed,
        embeddings=embeddings,
        durations_s=np.array([utterances[i].duration for i in kept.tolist()]),
        num_listed=len(utterances),
        audio="" if is_training else audio_status(utterances),
    )


def _require_streamable(
    data_list: str | os.PathLike[str],
    config: DatasetConfig,
    is_training: bool,
    feature_teacher: str,
) -> None:
    """Raise ConfigError for uses of shards that would read them in another order."""
    problems = [
        name
        for name, is_used in (
            ("dev and test sets", not is_training),
            ("dataset_conf.join_prob", config.join_prob > 0),
            ("batch_conf.batching: bucket", config.batch_conf.batching == "bucket"),
            ("batch_conf.negative_share", config.batch_conf.negative_share < 1.0),
            ("--feature_teacher", bool(feature_teacher)),
        )
        if is_used
    ]
    if problems:
        raise ConfigError(
            f"{data_list}: shards are read from start to end; {', '.join(problems)} needs audio "
            "files: name the list that the shards were made from, or leave it out"
        )


def _frame_ranges(
    counts: Sequence[np.ndarray], config: DatasetConfig, is_online: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the fewest and the most frames that each utterance can have in any epoch, (N,).

    counts: (N,) frames in each cached copy, or without a cache those that the durations give.
    is_online: waveforms are augmented in every epoch.
    """
    shortest, longest = np.min(counts, axis=0), np.max(counts, axis=0)
    augmentation = config.augmentation
    if augmentation is None or not is_online:
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
        places = np.arange(rank, len(indices), world_size)
        batch = dataset.batch(indices[places], epoch, places=places, num_global=len(indices))
        return batch.pin_memory() if pin_memory else batch

    plan = epoch_plan(
        dataset,
        batch_size=batch_size,
        epoch=epoch,
        seed=seed,
        world_size=world_size,
        shuffle=shuffle,
    )
    dataset.start(np.concatenate([indices[rank::world_size] for indices in plan]), epoch)
    return _prefetch(make, plan, dataset.num_ahead)


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
    if dataset.shards is not None:
        if batch_size % world_size:
            raise ConfigError(
                f"batch_conf.batch_size {batch_size}: with shards, expected a multiple of the "
                f"{world_size} processes"
            )
        order = shard_order(
            dataset.shards,
            epoch=epoch,
            seed=seed,
            world_size=world_size,
            buffer_size=dataset.config.shuffle_size if shuffle else 1,
            repeated=dataset.repeated,
        )
        return cut_batches(order, batch_size, world_size)
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


def _prefetch(
    make: Callable[[Item], Result], items: Iterable[Item], num_ahead: int = 1
) -> Iterator[Result]:
    """Yield make(item) for each item while ``num_ahead`` threads make the next ones.

    If the consumer stops early, or either side raises, the threads are waited for and ended.
    """
    with ThreadPoolExecutor(num_ahead, thread_name_prefix="batches") as threads:
        pending: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            pending.append(threads.submit(make, item))
            if len(pending) > num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@collector_paused()
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
