"""A data list becomes a data set: its caches are opened or built, unusable utterances left out.

Axes: N utterances, K keywords.
"""

import functools
import logging
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wekws.dataset.cache import FeatureCache, cache_path, open_cache
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.embeddings import open_embeddings
from wekws.dataset.extract import (
    MIN_BACKGROUND,
    ExtractionPool,
    Extractor,
    background_recordings,
)
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.filters import filter_reasons, keep_share, report_left_out, without_long
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import (
    Utterance,
    audio_status,
    collector_paused,
    read_data_list,
)
from wekws.dataset.shards import ShardSource, is_sharded
from wekws.dataset.sources import (
    AudioSource,
    CacheSource,
    FeatureSource,
    frames_by_duration,
    sizes_fingerprint,
)
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import ConfigError

logger = logging.getLogger(__name__)


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
    if is_training:
        _warn_of_missing_background(data_list, utterances, config)
    listed = utterances
    if use_filters and not sharded:
        utterances = without_long(data_list, listed, config)
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
    source = _feature_source(
        utterances,
        config,
        caches,
        num_frames=counts[0],
        is_training=is_training,
        is_online=is_online,
        seed=seed,
        num_workers=num_workers,
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
        num_listed=len(listed),
        audio="" if is_training else audio_status(listed),
    )


def _warn_of_missing_background(
    data_list: str | os.PathLike[str], utterances: Sequence[Utterance], config: DatasetConfig
) -> None:
    augment = config.augment_conf
    if not augment.noise_prob or "background" not in augment.noise_weights:
        return
    num = len(background_recordings(utterances, augment))
    if num < MIN_BACKGROUND:
        logger.warning(
            "%s: %d recordings without words (`<filler>`, `<noise>`), fewer than %d: the noise "
            "`background` of noise_kinds is never drawn",
            data_list, num, MIN_BACKGROUND,
        )  # fmt: skip


def _feature_source(
    utterances: Sequence[Utterance],
    config: DatasetConfig,
    caches: Sequence[FeatureCache],
    *,
    num_frames: np.ndarray,
    is_training: bool,
    is_online: bool,
    seed: int,
    num_workers: int,
) -> FeatureSource:
    """Return what gives the features in every epoch: caches, or the audio itself.

    num_frames: (N,) frames without augmentation, or those that the durations give.
    is_online: waveforms are augmented in every epoch, or there is no cache in training.
    """
    view = config.online_view(is_training, seed)
    if is_sharded(utterances):
        return ShardSource(
            utterances,
            view,
            num_workers=num_workers,
            num_frames=num_frames,
            max_bad_fraction=config.max_bad_fraction,
        )
    if caches and not is_online:
        return CacheSource(caches, config.cached_views(is_training))
    return AudioSource(
        ExtractionPool(functools.partial(Extractor, utterances, view, is_kept=False), num_workers),
        view,
        num_frames=num_frames,
        audio_fingerprint=(
            caches[0].audio_fingerprint if caches else sizes_fingerprint(utterances)
        ),
        max_bad_fraction=config.max_bad_fraction,
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
