"""The ``dataset_conf`` section: WeKWS's names, checked."""

import dataclasses
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wekws.config import load_config, parse_config
from wekws.dataset.augment import AugmentConfig, SpecAugConfig
from wekws.dataset.extract import FeatureView
from wekws.dataset.features import ContextExpansionConfig, FbankConfig
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd

log = logging.getLogger(__name__)

_WEKWS_SPEEDS = (0.9, 1.0, 1.1)


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which utterances are left out; frames are those of the filterbank, before frame_skip."""

    max_length: int = 2048
    """Most frames."""
    min_length: int = 0
    """Fewest frames."""
    token_max_length: int = 200
    """Most labels."""
    token_min_length: int = 0
    """Fewest labels; noise and silence have none."""
    max_output_input_ratio: float = 1.0
    """Most labels for each frame."""
    min_output_input_ratio: float = 0.0
    """Fewest labels for each frame."""
    max_label_length: int = 0
    """Most labels of an utterance to train on; cv keeps longer ones. 0: any."""
    data_share: float = 1.0
    """Share of the training utterances that is used, of keywords and of the rest alike; the same
    ones each time. Above 0, at most 1."""

    def __post_init__(self):
        """Refuse ranges that nothing can satisfy."""
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
    """The sample rate that all audio is brought to."""

    resample_rate: int = 16000
    """Hz."""

    def __post_init__(self):
        """Refuse what is no rate."""
        if self.resample_rate <= 0:
            raise ConfigError(f"resample_rate: found {self.resample_rate}; expected > 0 Hz")


@dataclass(frozen=True, kw_only=True)
class ShuffleConfig:
    """WeKWS's shuffle buffer: read, without effect."""

    shuffle_size: int = 1500
    """Utterances."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How utterances are put together."""

    batch_size: int = 64
    """Utterances of one optimiser step, those of all processes together."""
    batching: Literal["random", "bucket"] = "random"
    """bucket: batches of similar length, in random order; less padding, less mixed batches."""
    pool_batches: int = 16
    """bucket: batches' worth of shuffled utterances that are sorted together."""

    def __post_init__(self):
        """Refuse empty batches."""
        for name in ("batch_size", "pool_batches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected >= 1")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """From audio to model input."""

    filter_conf: FilterConfig = FilterConfig()
    resample_conf: ResampleConfig = ResampleConfig()
    speed_perturb: bool = False
    """WeKWS's switch for augment_conf.speeds 0.9, 1, 1.1."""
    feats_type: Literal["fbank"] = "fbank"
    fbank_conf: FbankConfig = FbankConfig()
    context_expansion: bool = True
    context_expansion_conf: ContextExpansionConfig = ContextExpansionConfig()
    frame_skip: int = 3
    """Every how many frames one goes into the model, >= 1."""
    spec_aug: bool = True
    spec_aug_conf: SpecAugConfig = SpecAugConfig()
    augment_conf: AugmentConfig = AugmentConfig()
    join_prob: float = 0.0
    """Share of training utterances that another one follows at once, 0 to 1."""
    shuffle: bool = True
    """Whether each training epoch has an order of its own."""
    shuffle_conf: ShuffleConfig | None = None
    """Without effect: the whole list is shuffled."""
    sort: bool = False
    """Without effect: see batch_conf.batching."""
    batch_conf: BatchConfig = BatchConfig()
    max_bad_fraction: float = 0.01
    """Share of utterances that may be unreadable, 0 to 1."""

    def __post_init__(self):
        """Refuse what the parts cannot know, and name settings without effect."""
        if self.frame_skip < 1:
            raise ConfigError(f"frame_skip: found {self.frame_skip}; expected >= 1")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: found {self.max_bad_fraction}; expected 0 to 1")
        if not 0 <= self.join_prob <= 1:
            raise ConfigError(f"join_prob: found {self.join_prob}; expected 0 to 1")
        if self.speed_perturb and self.augment_conf.speeds not in ((1.0,), _WEKWS_SPEEDS):
            raise ConfigError("speed_perturb and augment_conf.speeds disagree; set one of them")

    @property
    def context(self) -> ContextExpansionConfig:
        """The context in use: none where context_expansion is off."""
        none = ContextExpansionConfig(left=0, right=0)
        return self.context_expansion_conf if self.context_expansion else none

    @property
    def front_end(self) -> FrontEnd:
        """The front end that this section describes."""
        return FrontEnd(
            sample_rate_hz=self.resample_conf.resample_rate,
            num_mel_bins=self.fbank_conf.num_mel_bins,
            frame_length_ms=self.fbank_conf.frame_length,
            frame_shift_ms=self.fbank_conf.frame_shift,
            left_context=self.context.left,
            right_context=self.context.right,
            frame_skip=self.frame_skip,
        )

    @property
    def augmentation(self) -> AugmentConfig | None:
        """The waveform augmentation in use, None if there is none."""
        config = self.augment_conf
        if self.speed_perturb:
            config = dataclasses.replace(config, speeds=_WEKWS_SPEEDS)
        return config if config.is_active else None

    @property
    def is_online(self) -> bool:
        """Whether training audio is augmented anew each epoch instead of in cached copies."""
        return self.augmentation is not None and self.augment_conf.copies == 0

    def view(self, is_training: bool) -> FeatureView:
        """Return the view without waveform augmentation: with dither in training only."""
        return FeatureView(
            front_end=self.front_end,
            dither=self.fbank_conf.dither if is_training else 0.0,
            seed=self.augment_conf.seed,
        )

    def cached_views(self, is_training: bool) -> list[FeatureView]:
        """Return the views to keep in caches: the augmented copies, or the one without."""
        plain = self.view(is_training)
        if not is_training or self.augmentation is None or self.is_online:
            return [plain]
        return [
            dataclasses.replace(plain, augment=self.augmentation, copy=copy)
            for copy in range(self.augment_conf.copies)
        ]

    def warn_of_idle_settings(self) -> None:
        """Name settings that were given and change nothing."""
        if self.shuffle_conf is not None:
            log.warning("dataset_conf.shuffle_conf has no effect: the whole list is shuffled")
        if self.sort:
            log.warning("dataset_conf.sort has no effect: see batch_conf.batching")
        if self.augment_conf.copies > 0 and self.augmentation is None:
            log.warning("augment_conf.copies has no effect: no augmentation is on")


def load_dataset_config(
    path: str | os.PathLike[str], overlays: Iterable[str | os.PathLike[str]] = ()
) -> DatasetConfig:
    """Read the ``dataset_conf`` section of a configuration file; without one, the defaults.

    overlays: files laid over it, in this order.
    Raises: ConfigError naming every problem of the section.
    """
    return parse_config(DatasetConfig, load_config(path, overlays), "dataset_conf")
