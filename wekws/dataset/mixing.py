"""Long test recordings: keywords of a test set, mixed into its audio without keywords.

Axes: N samples.
"""

import dataclasses
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from wekws.dataset.audio import read_audio
from wekws.dataset.manifest import Utterance, read_data_list
from wekws.dataset.references import Reference, write_references
from wekws.dataset.vocabulary import contains_keyword, normalise
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, file_sha256, write_json

logger = logging.getLogger(__name__)

BACKGROUND_DBFS = -30.0
"""Root mean square of each background recording, in dB of full scale."""
FLOOR_DBFS = -50.0
"""The background under a keyword counts as at least this loud."""
ACTIVE_DB = 25.0
"""A keyword begins and ends where its energy is this far below its loudest frame, or less where
the noise of its clip is nearer, see `active_span`."""
ABOVE_NOISE_DB = 10.0
"""Frames of a keyword are so far above the noise of its clip."""
_NOISE_PERCENTILE = 10  # of the frames' energies: a clip has some time beside its keyword
MIN_BACKGROUND_S = 5.0
"""Shorter utterances are no background."""
_FRAME_S = 0.025
_LARGEST = 0.99


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Composition of a mixed recording."""

    hours: float = 2.0
    """Longest length of the recording; it ends earlier where the background does."""
    snr_db: float = 10.0
    """Power of a keyword above that of the background under it, in dB."""
    spacing_s: float = 15.0
    """Mean time from the start of a keyword's utterance to that of the next, in seconds."""
    sample_rate_hz: int = 16000
    """Sample rate of the recording."""
    seed: int = 0
    """Seed of order and places."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("hours", "spacing_s", "sample_rate_hz"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}: found {value}; expected a number above 0")
        if not abs(self.snr_db) <= 100:
            raise ConfigError(f"snr_db: found {self.snr_db}; expected -100 to 100")


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A mixed recording on disk."""

    recording: Path
    """The audio: FLAC, 16 bits."""
    references: Path
    """Its keywords; see `wekws.dataset.references`."""
    num_keywords: int
    """Keywords in it."""
    num_unclear: int
    """Those whose end in their clip is not sure, see `ActiveSpan`."""
    hours: float
    """Its length."""


def mix_recording(
    data_list: str | os.PathLike[str],
    keywords: Sequence[str],
    out_dir: str | os.PathLike[str],
    options: MixOptions,
) -> Mixed:
    """Write ``mixed.flac``, ``references.tsv`` and ``mix.json`` to a folder.

    The utterances whose text is one keyword are mixed into those without any keyword, which follow
    each other in random order, all at the same level. Each keyword's utterance occurs at most once.
    The same arguments give the same bytes.
    keywords: in normalised form.
    Raises: DataError if the list has no such utterances, one of them cannot be used, or no keyword
    fits into the recording.
    """
    out_dir, rng = Path(out_dir), np.random.default_rng(options.seed)
    positives, background = _split(read_data_list(data_list), keywords)
    if not positives or not background:
        raise DataError(
            f"{data_list}: {len(positives)} utterances of {', '.join(keywords)} alone and "
            f"{len(background)} of {MIN_BACKGROUND_S:g} s or more without a keyword; expected both"
        )
    positives = [positives[i] for i in rng.permutation(len(positives))]
    background = [background[i] for i in rng.permutation(len(background))]
    recording, references_path = out_dir / "mixed.flac", out_dir / "references.tsv"
    references: list[Reference] = []
    num_samples = num_unclear = 0
    rate_hz = options.sample_rate_hz
    with (
        atomic_path(recording) as temporary,
        soundfile.SoundFile(temporary, "w", rate_hz, 1, "PCM_16", format="FLAC") as stream,
    ):
        for samples, placed in _mix(positives, _levelled(background, options), options, rng):
            stream.write(samples)
            num_samples += len(samples)
            if placed is not None:
                references.append(placed.reference)
                num_unclear += not placed.has_clear_end
        if not references:
            raise DataError(
                f"{data_list}: no keyword fits into {num_samples / rate_hz:.2f} s of background; "
                f"expected a longer recording: raise hours ({options.hours:g}) or lower spacing_s "
                f"({options.spacing_s:g})"
            )
    if num_unclear:
        logger.warning(
            "%s: %d of %d keywords have no clear end in their clips (noise less than %g dB below "
            "the loudest frame, or loud to the last one); their reference times, and the latencies "
            "of their detections, are not sure",
            data_list, num_unclear, len(references), ABOVE_NOISE_DB,
        )  # fmt: skip
    write_references(references_path, recording.name, references)
    made_with = {
        "data_list": str(data_list),
        "data_list_sha256": file_sha256(data_list),
        "keywords": list(keywords),
        **dataclasses.asdict(options),
        "recorded_hours": num_samples / rate_hz / 3600,
        "num_keywords": len(references),
        "num_unclear": num_unclear,
    }
    write_json(out_dir / "mix.json", made_with)
    return Mixed(
        recording=recording,
        references=references_path,
        num_keywords=len(references),
        num_unclear=num_unclear,
        hours=num_samples / rate_hz / 3600,
    )


class ActiveSpan(NamedTuple):
    """Samples of a clip in which its keyword is spoken."""

    first: int
    """The first one."""
    end: int
    """The one after the last."""
    has_clear_end: bool
    """Whether the end can be trusted: it cannot if the loudest frame is less than `ABOVE_NOISE_DB`
    above the noise of the clip, or the clip is loud to its last frame."""


def active_span(samples: np.ndarray, sample_rate_hz: int) -> ActiveSpan:
    """Return the samples from the first to the last loud frame of 25 ms.

    A frame is loud if its energy is at most `ACTIVE_DB` below that of the loudest, and at least
    `ABOVE_NOISE_DB` above the noise of the clip; where these leave nothing between them, if it is
    in the upper half, in dB, of what is between the noise and the loudest frame.
    samples: (N,), N > 0.
    """
    frame = max(1, round(_FRAME_S * sample_rate_hz))
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % frame))
    energy_db = 10 * np.log10(np.maximum(np.square(padded.reshape(-1, frame)).sum(axis=1), 1e-20))
    noise, peak = float(np.percentile(energy_db, _NOISE_PERCENTILE)), float(energy_db.max())
    above_noise = min(noise + ABOVE_NOISE_DB, (noise + peak) / 2)
    loud = np.flatnonzero(energy_db >= max(peak - ACTIVE_DB, above_noise))
    end = min((int(loud[-1]) + 1) * frame, len(samples))
    is_above_noise = peak - noise >= ABOVE_NOISE_DB
    return ActiveSpan(int(loud[0]) * frame, end, is_above_noise and end < len(samples))


def _split(
    utterances: Iterable[Utterance], keywords: Sequence[str]
) -> tuple[list[tuple[Utterance, str]], list[Utterance]]:
    """Return the utterances of one keyword alone, and those that can be background."""
    positives, background = [], []
    for utterance in utterances:
        words = utterance.txt if isinstance(utterance.txt, str) else " ".join(utterance.tok or ())
        if normalise(words) in keywords:
            positives.append((utterance, normalise(words)))
        elif utterance.duration >= MIN_BACKGROUND_S and not any(
            contains_keyword(words, keyword) for keyword in keywords
        ):
            background.append(utterance)
    return positives, background


def _levelled(background: Sequence[Utterance], options: MixOptions) -> Iterator[np.ndarray]:
    """Yield background recordings at their level, up to the length of the mixed recording."""
    left = round(3600 * options.hours * options.sample_rate_hz)
    for utterance in background:
        samples = read_audio(utterance.wav, options.sample_rate_hz)[:left]
        level = np.sqrt(np.mean(np.square(samples), dtype=np.float64))
        gain = 10 ** (BACKGROUND_DBFS / 20) / max(float(level), 1e-6)
        yield (samples * np.float32(gain)).clip(-_LARGEST, _LARGEST)
        left -= len(samples)
        if left <= 0:
            return


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A keyword in the mixed recording."""

    reference: Reference
    """Its place."""
    has_clear_end: bool
    """Whether its end in its clip is sure."""


def _mix(
    positives: Iterable[tuple[Utterance, str]],
    background: Iterator[np.ndarray],
    options: MixOptions,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, _Placed | None]]:
    """Yield the samples of the mixed recording in pieces, each with the keyword in it, if any."""
    rate_hz = options.sample_rate_hz
    waiting = np.zeros(0, np.float32)  # background that is not written yet
    first = 0  # its first sample, counted from the start
    place = 0  # where the next keyword's utterance may begin
    for utterance, keyword in positives:
        clip = read_audio(utterance.wav, rate_hz)
        # Half a spacing to one and a half after the last one began, or where it ended.
        begin = max(first, place + round(options.spacing_s * rate_hz * rng.uniform(-0.5, 0.5)))
        while len(waiting) < begin + len(clip) - first:
            if (piece := next(background, None)) is None:
                yield waiting, None
                return
            waiting = np.concatenate([waiting, piece])
        yield waiting[: begin - first], None
        waiting = waiting[begin - first :].copy()
        span = active_span(clip, rate_hz)
        active = slice(span.first, span.end)
        waiting[: len(clip)] = _mixed_in(clip, waiting[: len(clip)], active, options.snr_db)
        reference = Reference(
            keyword=keyword,
            start_s=(begin + span.first) / rate_hz,
            end_s=(begin + span.end) / rate_hz,
        )
        yield waiting[: len(clip)], _Placed(reference=reference, has_clear_end=span.has_clear_end)
        waiting, first = waiting[len(clip) :], begin + len(clip)
        place = begin + round(options.spacing_s * rate_hz)
    yield waiting, None
    for piece in background:
        yield piece, None


def _mixed_in(clip: np.ndarray, background: np.ndarray, active: slice, snr_db: float) -> np.ndarray:
    """Return background and keyword together, the keyword at ``snr_db`` above the background."""
    keyword = clip[active].astype(np.float64)
    floor = 10 ** (FLOOR_DBFS / 10)
    under = max(float(np.mean(np.square(background[active], dtype=np.float64))), floor)
    power = max(float(np.mean(np.square(keyword))), 1e-12)
    gain = np.float32(math.sqrt(under / power * 10 ** (snr_db / 10)))
    return (background + gain * clip).clip(-_LARGEST, _LARGEST)
