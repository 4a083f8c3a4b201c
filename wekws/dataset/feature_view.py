"""Settings that features depend on. They are read without torch."""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from wekws.dataset.codecs import OPUS_KBPS
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd

# Increased when the same settings give different features, so that old caches are rebuilt.
_VERSION = 1
# Settings of AugmentConfig that were added since. At their defaults they are no part of a view's
# identity, so that the caches of before stay valid.
_LATER_SETTINGS = (
    "tempos",
    "room_kinds",
    "room_distance_m",
    "rir_dir",
    "level_prob",
    "level_dbfs",
    "microphone_prob",
    "microphone_db",
    "telephone_prob",
    "opus_prob",
    "opus_kbps",
)

NoiseKind = Literal["white", "pink", "brown", "babble", "background"]
"""Kinds of noise that need no folder of recordings."""


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """Filterbank settings under WeKWS's names."""

    num_mel_bins: int = 80
    """Number of mel bins, > 0."""
    frame_shift: float = 10.0
    """Time from one frame to the next in ms, > 0."""
    frame_length: float = 25.0
    """Length of one analysis window in ms, >= frame_shift."""
    dither: float = 1.0
    """Standard deviation, on the int16 scale, of the noise added in training; >= 0. Elsewhere its
    expected energy is added to the mel bins."""

    def __post_init__(self) -> None:
        """Refuse settings that give no frame."""
        if self.num_mel_bins <= 0:
            raise ConfigError(f"num_mel_bins: found {self.num_mel_bins}; expected > 0")
        if not 0 < self.frame_shift <= self.frame_length:
            raise ConfigError(
                f"frame_shift {self.frame_shift}, frame_length {self.frame_length}: expected"
                " 0 < frame_shift <= frame_length"
            )
        if self.dither < 0:
            raise ConfigError(f"dither: found {self.dither}; expected >= 0")


@dataclass(frozen=True, kw_only=True)
class ContextExpansionConfig:
    """Number of neighbouring frames that are joined to each frame."""

    left: int = 2
    """Frames before the current one, >= 0."""
    right: int = 2
    """Frames after the current one, >= 0."""

    def __post_init__(self) -> None:
        """Refuse negative numbers of frames."""
        if self.left < 0 or self.right < 0:
            raise ConfigError(f"left {self.left}, right {self.right}: expected >= 0")


@dataclass(frozen=True, kw_only=True)
class SpecAugConfig:
    """SpecAugment on 10 ms frames (Park et al. 2019, arXiv:1904.08779, section 2)."""

    num_t_mask: int = 1
    """Number of time masks per utterance, >= 0."""
    num_f_mask: int = 1
    """Number of frequency masks per utterance, >= 0."""
    max_t: int = 20
    """Widest time mask in frames; widths are uniform from 0."""
    max_f: int = 10
    """Widest frequency mask in mel bins; widths are uniform from 0."""

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        for name in ("num_t_mask", "num_f_mask", "max_t", "max_f"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected >= 0")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training waveforms before features are computed."""

    copies: int = 0
    """Augmented copies in the feature cache, one per epoch in turn; 0: augment in every epoch."""
    seed: int = 0
    """Seed of the cached copies; separate from the seed of a run, so that runs share one cache."""
    speeds: tuple[float, ...] = (1.0,)
    """Factors of speed (and pitch), one drawn per utterance; 0.5 to 2."""
    tempos: tuple[float, ...] = (1.0,)
    """Factors of speaking rate at the same pitch, one drawn per utterance, 0.5 to 2: the filterbank
    takes its frames further apart (fast speech) or closer together."""
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Range of a random gain in dB."""
    noise_prob: float = 0.0
    """Share of utterances to which noise is added, 0 to 1."""
    noise_snr_db: tuple[float, float] = (0.0, 15.0)
    """Range of the signal-to-noise ratio in dB."""
    noise_dir: str | dict[str, float] = ""
    """Folder of noise recordings, one more kind beside noise_kinds; empty: none. Or several with
    their weights, such as {data/noise: 2, data/music: 0.5}; each of noise_kinds weighs 1."""
    noise_kinds: tuple[NoiseKind, ...] | dict[NoiseKind, float] = (
        "white",
        "pink",
        "brown",
        "babble",
    )
    """Kinds of noise, drawn with equal probability, or with weights: {white: 1, background: 4}.
    babble: several other utterances of the list at once; background: part of one that has no words
    (``<filler>`` or ``<noise>``), if there are any."""
    reverb_prob: float = 0.0
    """Share of utterances to which reverberation is added, 0 to 1."""
    reverb_rt60_s: tuple[float, float] = (0.1, 0.6)
    """Range of the reverberation time (60 dB) of simulated rooms in seconds, > 0."""
    room_kinds: tuple[Literal["diffuse", "shoebox"], ...] = ("diffuse",)
    """Kinds of simulated rooms, drawn with equal probability. diffuse: direct sound and noise that
    decays; shoebox: mirror images in a rectangular room."""
    room_distance_m: tuple[float, float] = (0.5, 4.0)
    """Range of the distance from speaker to microphone in shoebox rooms, in metres, > 0."""
    rir_dir: str = ""
    """Folder of recorded room impulse responses, one more kind beside room_kinds; empty: none."""
    level_prob: float = 0.0
    """Share of utterances that are brought to a random level, 0 to 1; the gain then cancels."""
    level_dbfs: tuple[float, float] = (-50.0, -20.0)
    """Range of this level: RMS of the whole utterance in dB relative to full scale, <= 0."""
    microphone_prob: float = 0.0
    """Share of utterances that pass a microphone with a random frequency response, 0 to 1."""
    microphone_db: float = 12.0
    """Largest gain or loss of this response at each octave below half the sample rate, in dB,
    >= 0."""
    telephone_prob: float = 0.0
    """Share of utterances that pass a telephone line (300 to 3400 Hz, G.711 mu-law), 0 to 1."""
    opus_prob: float = 0.0
    """Share of utterances that pass an Opus codec, 0 to 1."""
    opus_kbps: tuple[float, float] = (6.0, 24.0)
    """Range of the bit rate of Opus in kbit/s, 6 to 256."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.copies < 0:
            raise ConfigError(f"copies: found {self.copies}; expected >= 0")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"speeds: found {self.speeds}; expected factors from 0.5 to 2")
        if not self.tempos or not all(0.5 <= tempo <= 2 for tempo in self.tempos):
            raise ConfigError(f"tempos: found {self.tempos}; expected factors from 0.5 to 2")
        for name in (
            "noise_prob", "reverb_prob", "level_prob", "microphone_prob", "telephone_prob",
            "opus_prob",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected 0 to 1")
        for name in (
            "gain_db", "noise_snr_db", "reverb_rt60_s", "room_distance_m", "level_dbfs", "opus_kbps"
        ):  # fmt: skip
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name}: found {low} to {high}; expected the lower first")
        if self.reverb_rt60_s[0] <= 0:
            raise ConfigError(f"reverb_rt60_s: found {self.reverb_rt60_s[0]}; expected > 0")
        if self.room_distance_m[0] <= 0:
            raise ConfigError(f"room_distance_m: found {self.room_distance_m[0]}; expected > 0")
        if self.microphone_db < 0:
            raise ConfigError(f"microphone_db: found {self.microphone_db}; expected >= 0")
        if self.level_dbfs[1] > 0:
            raise ConfigError(f"level_dbfs: found {self.level_dbfs[1]}; expected <= 0")
        if not OPUS_KBPS[0] <= self.opus_kbps[0] <= self.opus_kbps[1] <= OPUS_KBPS[1]:
            raise ConfigError(f"opus_kbps: found {self.opus_kbps}; expected 6 to 256")
        for name, weights in (("noise_dir", self.noise_dirs), ("noise_kinds", self.noise_weights)):
            if not all(0 < weight < math.inf for weight in weights.values()):
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected weights > 0")
        if self.noise_prob > 0 and not self.noise_kinds and not self.noise_dir:
            raise ConfigError("noise_prob > 0 needs noise_kinds or noise_dir")
        if self.reverb_prob > 0 and not self.room_kinds and not self.rir_dir:
            raise ConfigError("reverb_prob > 0 needs room_kinds or rir_dir")

    @property
    def is_active(self) -> bool:
        """Whether these settings can change any features."""
        return (
            self.speeds != (1.0,)
            or self.tempos != (1.0,)
            or self.gain_db != (0.0, 0.0)
            or self.noise_prob > 0
            or self.reverb_prob > 0
            or self.level_prob > 0
            or self.microphone_prob > 0
            or self.telephone_prob > 0
            or self.opus_prob > 0
        )

    @property
    def noise_dirs(self) -> dict[str, float]:
        """Weight by folder of noise recordings."""
        if isinstance(self.noise_dir, str):
            return {self.noise_dir: 1.0} if self.noise_dir else {}
        return self.noise_dir

    @property
    def noise_weights(self) -> dict[NoiseKind, float]:
        """Weight by kind of noise."""
        if isinstance(self.noise_kinds, dict):
            return self.noise_kinds
        return dict.fromkeys(self.noise_kinds, 1.0)

    @property
    def folders(self) -> list[str]:
        """Folders of recordings that are used."""
        rooms = [self.rir_dir] if self.reverb_prob > 0 and self.rir_dir else []
        return [*rooms, *(self.noise_dirs if self.noise_prob > 0 else ())]


@dataclass(frozen=True, kw_only=True)
class FeatureView:
    """All settings that the features of an utterance depend on."""

    front_end: FrontEnd
    """Sample rate and filterbank; context and frame skip are applied later."""
    dither: float = 0.0
    """Dither in use: that of the configuration in training, 0 elsewhere."""
    augment: AugmentConfig | None = None
    """Waveform augmentation; None: the audio is not changed."""
    copy: int = 0
    """Number of the augmented copy; its random numbers depend on (seed, copy, key)."""
    seed: int = 0
    """Seed of augmentation and dither."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format of a cache."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that change features, as plain values."""
        settings = dataclasses.asdict(self) | {"version": _VERSION}
        if self.storage == "float32":  # caches of before have no other
            del settings["storage"]
        # Context and frame skip are applied after the cache.
        del settings["front_end"]
        settings["sample_rate_hz"] = self.front_end.sample_rate_hz
        settings["fbank"] = {
            "num_mel_bins": self.front_end.num_mel_bins,
            "frame_shift": self.front_end.frame_shift_ms,
            "frame_length": self.front_end.frame_length_ms,
        }
        if self.dither == 0 and self.front_end.expected_dither > 0:
            settings["expected_dither"] = self.front_end.expected_dither
        if self.augment is not None:
            del settings["augment"]["copies"], settings["augment"]["seed"]
            defaults = dataclasses.asdict(AugmentConfig())
            for name in _LATER_SETTINGS:
                if settings["augment"][name] == defaults[name]:
                    del settings["augment"][name]
        if self.augment is None and self.dither == 0:
            del settings["seed"], settings["copy"]
        return settings

    def speed(self, key: str, copy: int) -> float:
        """Return how many times as fast as the recording a copy is, by its speed and tempo."""
        if self.augment is None or len(self.augment.speeds) == 1:
            factor = self.augment.speeds[0] if self.augment is not None else 1.0
        else:
            factor = draw_speed(self.augment, copy_rng(self.seed, copy, key))
        return float(speed_ratio(factor)) * self.tempo(key, copy)

    def tempo(self, key: str, copy: int) -> float:
        """Return the factor between the shifts of the frames of a copy and those of the front end.

        It has random numbers of its own, so that the waveform does not depend on it. Kaldi's shift
        is a whole number of samples.
        """
        if self.augment is None or self.augment.tempos == (1.0,):
            return 1.0
        rng = copy_rng(self.seed, copy, f"{key}\0tempo")
        factor = self.augment.tempos[rng.integers(len(self.augment.tempos))]
        shift_samples = self.front_end.sample_rate_hz * self.front_end.frame_shift_ms / 1000
        return round(factor * shift_samples) / shift_samples


def draw_speed(config: AugmentConfig, rng: np.random.Generator) -> float:
    """Return the speed of an augmented version, the first random number of ``augment``."""
    return config.speeds[rng.integers(len(config.speeds))]


def speed_ratio(factor: float) -> Fraction:
    """Return the speed in use: a ratio of whole numbers whose denominator is at most 100."""
    return Fraction(factor).limit_denominator(100)


def copy_rng(seed: int, copy: int, key: str) -> np.random.Generator:
    """Return the generator of one copy of one utterance; independent of the list's order."""
    digest = hashlib.sha256(f"{seed}\0{copy}\0{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
