"""Plan of a synthesised corpus: the list of its utterances, before any audio is made."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from compose import WORDS_DIR
from language import Language, PhonemesOf

SPLITS = ("train", "dev", "test")
CONFUSABLES_PER_KEYWORD = 120
UNSEEN_SHARE = 0.25  # share of the confusables that occur in dev and test, never in train

Option = TypeVar("Option")


@dataclass(frozen=True, kw_only=True)
class SplitSize:
    """Numbers of utterances in one split, for up to two keywords.

    With more than two keywords, the positives of two are shared among all of them, and the number
    of confusables grows with the number of keywords.
    """

    positives: int
    """Utterances of each keyword."""
    sentences: int
    """General sentences (and isolated words where the language has them)."""
    confusables: int
    """Phrases that sound like a keyword."""
    noises: int
    """Recordings without speech."""
    duration_s: tuple[float, float]
    """Range of the target duration of sentences and noises."""


def _size(
    positives: int, sentences: int, confusables: int, noises: int, duration_s: tuple[float, float]
) -> SplitSize:
    return SplitSize(
        positives=positives,
        sentences=sentences,
        confusables=confusables,
        noises=noises,
        duration_s=duration_s,
    )


SIZES = {
    "tiny": {
        "train": _size(15, 20, 6, 4, (1.0, 3.5)),
        "dev": _size(5, 7, 2, 1, (2.0, 4.0)),
        "test": _size(8, 10, 2, 2, (2.0, 4.0)),
    },
    "small": {
        "train": _size(900, 1800, 1200, 200, (1.2, 4.2)),
        "dev": _size(150, 880, 30, 90, (4.0, 8.0)),
        "test": _size(400, 1760, 60, 180, (4.0, 8.0)),
    },
    "full": {
        "train": _size(3500, 8500, 4500, 900, (1.2, 5.0)),
        "dev": _size(500, 2800, 90, 250, (4.0, 8.0)),
        "test": _size(1500, 6000, 200, 500, (4.0, 8.0)),
    },
    # 100,000 utterances: a third of Mobvoi hi_xiaowen, in the proportions of its splits.
    "large": {
        "train": _size(7612, 28000, 14700, 3000, (1.2, 5.0)),
        "dev": _size(1284, 9690, 320, 870, (4.0, 8.0)),
        "test": _size(3714, 16100, 560, 1540, (4.0, 8.0)),
    },
}
# The same train and dev audio as `small`, to the byte, and a test set with 30 hours of negatives,
# so that 1 false alarm per hour is thirty false alarms instead of three.
SIZES["long_test"] = SIZES["small"] | {"test": _size(1500, 15840, 540, 1620, (4.0, 8.0))}


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One voice, with the engine that has it."""

    engine: str
    """Name of the voice's source, see voices.py."""
    name: str
    """Name of the voice within its source."""


@dataclass(frozen=True, kw_only=True)
class PlannedUtterance:
    """One utterance to be synthesised."""

    utt_id: str
    """Utterance id: split, p or n (positive or negative), and a number."""
    split: str
    """train, dev or test."""
    kind: str
    """keyword, sentence, word, confusable or noise."""
    text: str
    """Input of the synthesiser; empty for noise."""
    transcript: str
    """The words alone; empty for noise."""
    keyword_id: int
    """Index of the keyword, -1 for negatives."""
    speaker: str
    """Voice variant; empty for noise."""
    duration_s: float
    """Length of a noise; 0 for speech."""
    seed: tuple[int, ...]
    """Seed of everything random in its audio."""
    engine: str = "espeak"
    """Source of the voice, see voices.py."""
    draw: int = 0
    """How often the synthesiser crashed on it; its rate and pitch are drawn anew each time."""

    @property
    def drawn_seed(self) -> tuple[int, ...]:
        """Seed of this draw."""
        return (*self.seed, self.draw) if self.draw else self.seed


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An utterance of the plan before it gets its id and speaker."""

    kind: str
    """keyword, sentence, word, confusable or noise."""
    text: str = ""
    """Input of the synthesiser; empty for noise."""
    keyword_id: int = -1
    """Index of the keyword, -1 for negatives."""
    duration_s: float = 0.0
    """Length of a noise; 0 for speech."""


def read_voices() -> dict[str, list[str]]:
    """Voice variants of each split, from words/voices.tsv."""
    voices: dict[str, list[str]] = {split: [] for split in SPLITS}
    with open(WORDS_DIR / "voices.tsv", encoding="utf-8") as stream:
        rows = (line for line in stream if not line.startswith("#"))
        for variant, split in csv.reader(rows, delimiter="\t"):
            voices[split].append(variant)
    return voices


def plan_corpus(
    size: str, language: Language, seed: int, phonemes_of: PhonemesOf
) -> list[PlannedUtterance]:
    """Plan all splits; no sentence occurs in two of them."""
    confusables = {
        keyword: language.confusables(keyword, CONFUSABLES_PER_KEYWORD, seed, phonemes_of)
        for keyword in language.keywords
    }
    voices = read_voices()
    used: set[str] = set()
    planned: list[PlannedUtterance] = []
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, index])
        phrases = _confusables_of(split, confusables)
        rows = _split_rows(SIZES[size][split], language, phrases, used, rng)
        speakers = in_turn(len(rows), voices[split], rng)
        planned += _utterances(rows, split, language, speakers, seed)
    return planned


def _confusables_of(split: str, confusables: dict[str, list[str]]) -> list[str]:
    """Confusable phrases of a split; every fourth phrase is left out of train."""
    stride = round(1 / UNSEEN_SHARE)
    phrases: list[str] = []
    for made in confusables.values():
        keep = [t for i, t in enumerate(made) if split != "train" or i % stride != stride - 1]
        phrases += [text for text in keep if text not in phrases]
    return phrases


def _split_rows(
    size: SplitSize,
    language: Language,
    phrases: list[str],
    used: set[str],
    rng: np.random.Generator,
) -> list[_Row]:
    """Rows of one split, in order; new sentences are added to `used`."""
    rows: list[_Row] = []
    pairs = max(1.0, len(language.keywords) / 2)
    for keyword_id, keyword in enumerate(language.keywords):
        row = _Row(kind="keyword", text=keyword, keyword_id=keyword_id)
        rows += [row] * round(size.positives / pairs)
    for _ in range(size.sentences):
        if rng.random() < language.word_share:
            rows.append(_Row(kind="word", text=language.word(rng)))
            continue
        rows.append(_Row(kind="sentence", text=_new_sentence(size, language, used, rng)))
    if phrases:
        chosen = in_turn(round(size.confusables * pairs), phrases, rng)
        rows += [_Row(kind="confusable", text=text) for text in chosen]
    durations = (float(rng.uniform(*size.duration_s)) for _ in range(size.noises))
    rows += [_Row(kind="noise", duration_s=duration_s) for duration_s in durations]
    return rows


def _new_sentence(
    size: SplitSize, language: Language, used: set[str], rng: np.random.Generator
) -> str:
    """A sentence that no split has used yet (after 20 tries, one that may have been used)."""
    for _ in range(20):
        text = language.sentence(rng, rng.uniform(*size.duration_s))
        if text not in used:
            break
    used.add(text)
    return text


def in_turn(num_rows: int, options: Sequence[Option], rng: np.random.Generator) -> list[Option]:
    """One option per row; within every len(options) rows each option occurs once."""
    rounds = [rng.permutation(len(options)) for _ in range(-(-num_rows // len(options)))]
    return [options[i] for i in itertools.islice(itertools.chain(*rounds), num_rows)]


def _utterances(
    rows: list[_Row], split: str, language: Language, speakers: list[str], seed: int
) -> Iterator[PlannedUtterance]:
    """Yield the rows as utterances, with ids, speakers and seeds."""
    counts = {"p": itertools.count(), "n": itertools.count()}
    for index, (row, speaker) in enumerate(zip(rows, speakers, strict=True)):
        sign = "n" if row.keyword_id < 0 else "p"
        yield PlannedUtterance(
            utt_id=f"{split}_{sign}_{next(counts[sign]):06d}",
            split=split,
            kind=row.kind,
            text=row.text,
            transcript=language.transcript(row.text),
            keyword_id=row.keyword_id,
            speaker="" if row.kind == "noise" else speaker,
            duration_s=row.duration_s,
            seed=(seed, SPLITS.index(split), index),
        )
