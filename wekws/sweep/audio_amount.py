"""Amount of audio of a run: from its lists or, before stage 1, from the folders of its user."""

import contextlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wekws.dataset.audio import AudioError, probe
from wekws.dataset.manifest import SPLITS
from wekws.dataset.negatives import Negative, num_pieces, read_negatives
from wekws.dataset.prepare import split_rows
from wekws.errors import DataError
from wekws.sweep.preset_info import USUAL_DURATIONS_S
from wekws.sweep.recipe_plan import RecipePlan
from wekws.sweep.synthesis_plan import SynthesisPlan

T = TypeVar("T")

# Lines of data.list from which durations are drawn.
_NUM_SAMPLED = 2000
# Headers that are read of a folder and split whose durations no list has.
_NUM_PROBED = 40
# Utterances of dev, and of test, beside those of train in a synthesised corpus: keywords, and
# sentences of 4 to 8 s.
_USUAL_EVAL_SHARE = 0.25
_USUAL_EVAL_DURATIONS_S = (1.5, 4.0, 6.0, 8.0)


@dataclass(frozen=True)
class AudioAmount:
    """Utterances of a set, and how long they are."""

    num: int
    """Number of utterances."""
    durations_s: Sequence[float]
    """Durations of some of them, at least one."""
    files: Mapping[str, float] = field(default_factory=dict)
    """Some of the audio files, with their durations; none of what is still to be synthesised."""

    @property
    def seconds(self) -> float:
        """All of their audio."""
        return self.seconds_up_to(math.inf)

    def seconds_up_to(self, longest_s: float) -> float:
        """Return the audio of those that are no longer."""
        counted = sum(seconds for seconds in self.durations_s if seconds <= longest_s)
        return self.num * counted / len(self.durations_s)


@dataclass(frozen=True, kw_only=True)
class AudioAmounts:
    """The sets of a run; None: not known before stage 1."""

    train: AudioAmount | None
    dev: AudioAmount | None
    test: AudioAmount | None
    base: AudioAmount | None
    """Training set of the base."""


def audio_amounts(plan: RecipePlan) -> AudioAmounts:
    """Return how much audio each set of a run has."""
    folders: list[list[Negative]] | None = []
    if not all((plan.lists / split / "data.list").exists() for split in SPLITS):
        folders = _negatives_of(plan)
    train, dev, test = (_of_split(plan, split, folders) for split in SPLITS)
    return AudioAmounts(train=train, dev=dev, test=test, base=_of_base(plan, train))


def _negatives_of(plan: RecipePlan) -> list[list[Negative]] | None:
    """Return the recordings of each folder of negatives; None if a table is damaged."""
    try:
        return [read_negatives(folder) for folder in plan.negatives]
    except DataError:
        return None  # stage -1, which is over, has named every problem


def _of_split(
    plan: RecipePlan, split: str, negatives: list[list[Negative]] | None
) -> AudioAmount | None:
    data_list = plan.lists / split / "data.list"
    if data_list.exists():
        return _listed([data_list])
    if plan.corpus == "mobvoi" or negatives is None:
        return None
    parts: list[AudioAmount | None] = []
    if plan.synthesis is not None:
        parts.append(_synthesised(plan.synthesis, split))
    if plan.data_dir is not None:
        parts.append(_recorded(plan.data_dir, split))
    if split != SPLITS[0] or not plan.from_text:
        parts += [_negatives(folder, split) for folder in negatives]
    elif plan.learns_transcripts:
        return None  # those with transcripts alone join train
    return _together(parts)


def _of_base(plan: RecipePlan, train: AudioAmount | None) -> AudioAmount | None:
    lists = [folder / "data.list" for folder in plan.base_sets]
    if all(path.exists() for path in lists):
        return _listed(lists)
    if plan.extra_lists is not None:
        return None
    if plan.synthesis is not None and plan.synthesis.is_beside_recordings:
        return AudioAmount(plan.synthesis.num_train, USUAL_DURATIONS_S)
    return train


def _listed(paths: Sequence[Path]) -> AudioAmount:
    sample: list[str] = []
    num = 0
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as lines:
            size = sum(1 for _ in lines)
            lines.seek(0)
            # Evenly: what is alike stands together.
            sample += itertools.islice(lines, 0, None, -(-size // _NUM_SAMPLED) or 1)
            num += size
    audio = [found for line in sample if (found := _audio_of(line))]
    files = dict(_some([(wav, seconds) for wav, seconds in audio if wav]))
    return AudioAmount(num, [seconds for _, seconds in audio] or USUAL_DURATIONS_S, files)


def _audio_of(line: str) -> tuple[str, float] | None:
    """Return file and duration in a line of data.list; None if there is none to be read."""
    try:
        content = json.loads(line)
        return str(content.get("wav", "")), float(content["duration"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _synthesised(speech: SynthesisPlan, split: str) -> AudioAmount:
    num = speech.num_train
    if speech.is_beside_recordings:
        num *= speech.joins_recordings and split == SPLITS[0]
    elif split != SPLITS[0]:
        return AudioAmount(round(_USUAL_EVAL_SHARE * num), _USUAL_EVAL_DURATIONS_S)
    return AudioAmount(num, USUAL_DURATIONS_S)


def _recorded(data_dir: Path, split: str) -> AudioAmount | None:
    """Return the audio of a split of the user's recordings; None if their tables say nothing."""
    try:
        wavs = [wav for _, wav in split_rows(data_dir, split, "wav.scp")]
    except DataError:
        return None  # stage 1 names every problem
    if not wavs:
        return None  # after stage -1 the folder may be gone
    files = _headers(wavs)
    return AudioAmount(len(wavs), list(files.values()) or USUAL_DURATIONS_S, files)


def _negatives(folder: Sequence[Negative], split: str) -> AudioAmount:
    """Return the audio of the negatives of a split, of which long ones will be cut."""
    wavs = [negative.wav for negative in folder if negative.split == split]
    files = _headers(wavs)
    pieces = [(num_pieces(d, split), d) for d in files.values()]
    cut = [d / num for num, d in pieces for _ in range(num)]
    per_file = len(cut) / len(pieces) if pieces else 1
    return AudioAmount(math.ceil(per_file * len(wavs)), cut or USUAL_DURATIONS_S, files)


def _headers(wavs: Sequence[str]) -> dict[str, float]:
    """Return the durations of some files, those that cannot be read left out."""
    durations = {}
    for wav in _some(wavs):
        with contextlib.suppress(AudioError):
            durations[wav] = probe(wav).duration_s
    return durations


def _some(values: Sequence[T]) -> Sequence[T]:
    return values[:: -(-len(values) // _NUM_PROBED) or 1]


def _together(parts: Sequence[AudioAmount | None]) -> AudioAmount | None:
    """Return the sum of several sets; its durations are drawn from each by its size."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    num = sum(part.num for part in known)
    durations: list[float] = []
    files: dict[str, float] = {}
    for part in known:
        count = math.ceil(_NUM_SAMPLED * part.num / max(1, num))
        durations += itertools.islice(itertools.cycle(part.durations_s), count)
        files |= part.files
    return AudioAmount(num, durations or USUAL_DURATIONS_S, files)
