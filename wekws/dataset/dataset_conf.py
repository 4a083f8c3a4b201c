"""The ``dataset_conf`` section of a configuration, under WeKWS's names."""

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from wekws.config import Key, RawConfig, load_config, merge, parse_config
from wekws.dataset.audio import audio_files
from wekws.dataset.codecs import OPUS_RATES_HZ, opus_is_available
from wekws.dataset.feature_view import (
    AugmentConfig,
    ContextExpansionConfig,
    FbankConfig,
    FeatureView,
    SpecAugConfig,
)
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd

logger = logging.getLogger(__name__)

_WEKWS_SPEEDS = (0.9, 1.0, 1.1)
_OLD_FBANK = "feature_extraction_conf"
_OLD_KEY = ("dataset_conf", _OLD_FBANK)


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Limits outside which utterances are left out; frames are filterbank frames."""

    max_length: int = 2048
    """Most frames per utterance."""
    min_length: int = 0
    """Fewest frames per utterance."""
    token_max_length: int = 200
    """Most labels per utterance."""
    token_min_length: int = 0
    """Fewest labels per utterance; noise and silence have none."""
    max_output_input_ratio: float = 1.0
    """Most labels per frame."""
    min_output_input_ratio: float = 0.0
    """Fewest labels per frame."""
    max_label_length: int = 0
    """Most labels per training utterance; the cv set keeps longer ones. 0: no limit."""
    data_share: float = 1.0
    """Share of the training utterances to use, the same ones each time; > 0, <= 1. It applies to
    utterances with and without a keyword separately."""

    def __post_init__(self) -> None:
        """Refuse empty ranges."""
        for low, high in (
            ("min_length", "max_length"),
            ("token_min_length", "token_max_length"),
            ("min_output_input_ratio", "max_output_input_ratio"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ConfigError(
                    f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}"
                )
        if self.max_label_length < 0:
            raise ConfigError(f"max_label_length: found {self.max_label_length}; expected >= 0")
        if not 0 < self.data_share <= 1:
            raise ConfigError(f"data_share: found {self.data_share}; expected above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class ResampleConfig:
    """Resampling of all audio to one sample rate."""

    resample_rate: int = 16000
    """Sample rate of the features in Hz, > 0."""

    def __post_init__(self) -> None:
        """Refuse rates that are not positive."""
        if self.resample_rate <= 0:
            raise ConfigError(f"resample_rate: found {self.resample_rate}; expected > 0 Hz")


@dataclass(frozen=True, kw_only=True)
class ShuffleConfig:
    """WeKWS's shuffle buffer; for shards only."""

    shuffle_size: int = 1500
    """Utterances among which a process draws the next one, >= 1."""

    def __post_init__(self) -> None:
        """Refuse an empty buffer."""
        if self.shuffle_size < 1:
            raise ConfigError(f"shuffle_size: found {self.shuffle_size}; expected >= 1")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Size and composition of batches."""

    batch_size: int = 64
    """Utterances per batch, all processes together, >= 1."""
    batching: Literal["random", "bucket"] = "random"
    """random, or bucket: batches of utterances of similar length (less padding, less mixing)."""
    pool_batches: int = 16
    """For bucket: shuffled utterances are sorted within pools of this many batches, >= 1."""
    negative_share: float = 1.0
    """Utterances without a keyword that an epoch takes, as a share of all of them, above 0 up to 1;
    drawn anew in each epoch. Utterances with a keyword are in every epoch."""

    def __post_init__(self) -> None:
        """Refuse empty batches."""
        for name in ("batch_size", "pool_batches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected >= 1")
        if not 0.0 < self.negative_share <= 1.0:
            raise ConfigError(
                f"negative_share: found {self.negative_share}; expected above 0, at most 1"
            )


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """All settings between audio files and model input."""

    filter_conf: FilterConfig = FilterConfig()
    """Limits outside which utterances are left out."""
    resample_conf: ResampleConfig = ResampleConfig()
    """Sample rate of the features."""
    speed_perturb: bool = False
    """WeKWS's switch for augment_conf.speeds 0.9, 1.0 and 1.1."""
    feats_type: Literal["fbank"] = "fbank"
    """Type of features; only log-mel filterbanks are supported."""
    fbank_conf: FbankConfig = FbankConfig()
    """Filterbank settings."""
    context_expansion: bool = True
    """Whether each frame is joined with its neighbours."""
    context_expansion_conf: ContextExpansionConfig = ContextExpansionConfig()
    """Number of neighbours."""
    frame_skip: int = 3
    """One of this many filterbank frames becomes model input, >= 1."""
    spec_aug: bool = True
    """Whether training masks features with SpecAugment."""
    spec_aug_conf: SpecAugConfig = SpecAugConfig()
    """SpecAugment settings."""
    augment_conf: AugmentConfig = AugmentConfig()
    """Augmentation of training waveforms."""
    cache: Literal["float32", "float16", "none"] = "float32"
    """Features on disk: as computed, in half the space, or none: they are computed from the audio
    in every epoch, and the lengths of utterances are those of the list."""
    join_prob: float = 0.0
    """Share of training utterances that are followed by another one without a gap, 0 to 1."""
    shuffle: bool = True
    """Whether each training epoch has a random order."""
    shuffle_conf: ShuffleConfig | None = None
    """Shuffle buffer for shards; otherwise without effect, since the whole list is shuffled."""
    sort: bool = False
    """Without effect: see batch_conf.batching."""
    batch_conf: BatchConfig = BatchConfig()
    """Size and composition of batches."""
    max_bad_fraction: float = 0.01
    """Share of utterances that may be unreadable, 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse values out of range and settings that contradict each other."""
        if self.frame_skip < 1:
            raise ConfigError(f"frame_skip: found {self.frame_skip}; expected >= 1")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: found {self.max_bad_fraction}; expected 0 to 1")
        if not 0 <= self.join_prob <= 1:
            raise ConfigError(f"join_prob: found {self.join_prob}; expected 0 to 1")
        samples_ms = self.resample_conf.resample_rate / 1000
        if int(self.fbank_conf.frame_shift * samples_ms) < 1:
            raise ConfigError(
                f"resample_conf.resample_rate: at {self.resample_conf.resample_rate} Hz there is no"
                f" sample in {self.fbank_conf.frame_shift:g} ms"
            )
        if self.speed_perturb and self.augment_conf.speeds not in ((1.0,), _WEKWS_SPEEDS):
            raise ConfigError("speed_perturb and augment_conf.speeds disagree; set one of them")
        rate = self.resample_conf.resample_rate
        if self.augment_conf.opus_prob > 0 and rate not in OPUS_RATES_HZ:
            raise ConfigError(f"augment_conf.opus_prob: Opus takes {OPUS_RATES_HZ}, not {rate} Hz")
        if self.augment_conf.telephone_prob > 0 and rate < 8000:
            raise ConfigError(f"augment_conf.telephone_prob: expected >= 8000 Hz, not {rate} Hz")

    @property
    def context(self) -> ContextExpansionConfig:
        """The context in use: 0 frames on both sides if context_expansion is off."""
        none = ContextExpansionConfig(left=0, right=0)
        return self.context_expansion_conf if self.context_expansion else none

    @property
    def front_end(self) -> FrontEnd:
        """The front end described by this section."""
        return FrontEnd(
            sample_rate_hz=self.resample_conf.resample_rate,
            num_mel_bins=self.fbank_conf.num_mel_bins,
            frame_length_ms=self.fbank_conf.frame_length,
            frame_shift_ms=self.fbank_conf.frame_shift,
            left_context=self.context.left,
            right_context=self.context.right,
            frame_skip=self.frame_skip,
            expected_dither=self.fbank_conf.dither,
        )

    @property
    def augmentation(self) -> AugmentConfig | None:
        """The waveform augmentation in use; None: no waveform is changed."""
        config = self.augment_conf
        if self.speed_perturb:
            config = dataclasses.replace(config, speeds=_WEKWS_SPEEDS)
        if config.opus_prob > 0 and not opus_is_available():
            config = dataclasses.replace(config, opus_prob=0.0)
        return config if config.is_active else None

    @property
    def is_online(self) -> bool:
        """Whether training audio is augmented in every epoch instead of in cached copies."""
        is_copied = self.augment_conf.copies > 0 and self.cache != "none"
        return self.augmentation is not None and not is_copied

    @property
    def shuffle_size(self) -> int:
        """Size of the shuffle buffer for shards."""
        return (self.shuffle_conf or ShuffleConfig()).shuffle_size

    def view(self, is_training: bool) -> FeatureView:
        """Return the view without waveform augmentation; dither is on in training only."""
        return FeatureView(
            front_end=self.front_end,
            dither=self.fbank_conf.dither if is_training else 0.0,
            seed=self.augment_conf.seed,
            storage="float32" if self.cache == "none" else self.cache,
        )

    def online_view(self, is_training: bool, seed: int) -> FeatureView:
        """Return the view of features that are computed anew in every epoch of a run.

        seed: of the run; it takes the place of that of the cached copies.
        """
        augment = self.augmentation if is_training else None
        return dataclasses.replace(self.view(is_training), augment=augment, seed=seed)

    @property
    def longest_trained_s(self) -> float:
        """Longest utterance that training takes, in seconds."""
        return self.filter_conf.max_length * self.fbank_conf.frame_shift / 1000

    def cached_views(self, is_training: bool) -> list[FeatureView]:
        """Return the views to cache: one per augmented copy, or one without augmentation, or none.

        Where audio is augmented in every epoch, the one without gives the lengths.
        """
        if self.cache == "none":
            return []
        plain = self.view(is_training)
        if not is_training or self.augmentation is None or self.is_online:
            return [plain]
        return [
            dataclasses.replace(plain, augment=self.augmentation, copy=copy)
            for copy in range(self.augment_conf.copies)
        ]

    def check_folders(self) -> None:
        """Check that every folder of noise and rooms that is used contains recordings.

        Raises: DataError naming one that does not. Only training needs these folders.
        """
        for folder in self.augmentation.folders if self.augmentation is not None else []:
            audio_files(folder)

    def warn_about_unused_settings(self, *, is_sharded: bool = False) -> None:
        """Warn about settings that were given but have no effect.

        is_sharded: the audio is in shards.
        """
        if self.shuffle_conf is not None and not is_sharded:
            logger.warning("dataset_conf.shuffle_conf has no effect: the whole list is shuffled")
        if self.sort:
            logger.warning("dataset_conf.sort has no effect: see batch_conf.batching")
        if self.augment_conf.copies > 0 and (self.cache == "none" or is_sharded):
            logger.warning("augment_conf.copies has no effect: without a cache no copy is kept")
        elif self.augment_conf.copies > 0 and self.augmentation is None:
            logger.warning("augment_conf.copies has no effect: no augmentation is configured")
        if self.augment_conf.opus_prob > 0 and not opus_is_available():
            logger.warning(
                "augment_conf.opus_prob has no effect: this machine's libsndfile has no Opus; "
                "soundfile 0.13 and newer bring one that has"
            )


def load_dataset_config(
    path: str | os.PathLike[str], overlays: Iterable[str | os.PathLike[str]] = ()
) -> DatasetConfig:
    """Read the ``dataset_conf`` section of a configuration; the defaults if it has none.

    overlays: files merged over it, in this order.
    Raises: ConfigError naming every problem of the section.
    """
    return parse_config(
        DatasetConfig, with_current_names(load_config(path, overlays)), "dataset_conf"
    )


def with_current_names(raw: RawConfig) -> RawConfig:
    """Return a configuration with the names that WeKWS has used since February 2025.

    Before, ``feature_extraction_conf`` contained ``feature_type`` and the filterbank settings,
    which are now ``feats_type`` and ``fbank_conf``. Where both are given, the current name counts.
    """
    section = raw.content.get("dataset_conf")
    if not isinstance(section, Mapping) or not isinstance(section.get(_OLD_FBANK), Mapping):
        return raw
    rest = {key: value for key, value in section.items() if key != _OLD_FBANK}
    fbank = dict(section[_OLD_FBANK])
    older = {"feats_type": fbank.pop("feature_type")} if "feature_type" in fbank else {}
    content = raw.content | {"dataset_conf": merge({**older, "fbank_conf": fbank}, rest)}
    origins = {_current_name(key): origin for key, origin in raw.origins.items()} | {
        key: origin for key, origin in raw.origins.items() if key[:2] != _OLD_KEY
    }
    return dataclasses.replace(raw, content=content, origins=origins)


def _current_name(key: Key) -> Key:
    if key == (*_OLD_KEY, "feature_type"):
        return ("dataset_conf", "feats_type")
    return ("dataset_conf", "fbank_conf", *key[2:]) if key[:2] == _OLD_KEY else key
