"""Plan of the speech from which any wake word can be trained, with recordings or without.

Keywords occur alone and between other words, as people say them. Near misses are found for each of
them, see near_misses.py. Engines with more voices speak more of the utterances.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from corpus_plan import SPLITS, PlannedUtterance, Speaker, in_turn
from language import Language

CONTEXTS = ("alone", "before", "behind", "between")  # place of the keyword among other words
CONTEXT_SHARES = {"keyword": (0.4, 0.3, 0.15, 0.15), "confusable": (0.7, 0.1, 0.1, 0.1)}
CONTEXT_UNITS = (1, 7)  # words or characters on one side
CONTEXT_S = 2.0  # sentences from which the words of a context are taken
PAUSE_SHARE = 0.4  # contexts with a pause between them and the keyword
UNSEEN_EVERY = 4  # every fourth near miss occurs in dev and test only
PLAN_SEED = 2_000_003


@dataclass(frozen=True, kw_only=True)
class WakeWordSize:
    """Numbers of utterances in one split."""

    positives: int
    """Utterances with each keyword."""
    near_misses: int
    """Utterances with a phrase that sounds like each keyword."""
    sentences: int
    """General sentences and words, whatever the number of keywords."""
    noises: int
    """Recordings without speech."""
    duration_s: tuple[float, float]
    """Range of the target duration of sentences and noises."""


def train_size(positives: int) -> WakeWordSize:
    """Training set with so many utterances of each keyword, and what it needs beside them."""
    return WakeWordSize(
        positives=positives,
        near_misses=round(0.8 * positives),
        sentences=3 * positives,
        noises=round(0.2 * positives),
        duration_s=(1.2, 4.5),
    )


def _eval_size(positives: int, sentences: int) -> WakeWordSize:
    return WakeWordSize(
        positives=positives,
        near_misses=positives,
        sentences=sentences,
        noises=round(sentences / 10),
        duration_s=(4.0, 8.0),
    )


def keywords_only(size: WakeWordSize) -> WakeWordSize:
    """The keywords of a split, and their near misses, without general negatives."""
    return dataclasses.replace(size, sentences=0, noises=0)


SIZES = {
    "tiny": {"train": train_size(12), "dev": _eval_size(4, 6), "test": _eval_size(4, 6)},
    "quick": {"train": train_size(300), "dev": _eval_size(40, 500), "test": _eval_size(60, 500)},
    # Dev and test have three hours of speech without a keyword each: the least for 1 per hour.
    "standard": {
        "train": train_size(1500),
        "dev": _eval_size(100, 2300),
        "test": _eval_size(200, 2300),
    },
}


def plan_wake_words(
    sizes: Mapping[str, WakeWordSize],
    language: Language,
    near_misses: Mapping[str, Sequence[str]],
    speakers: Mapping[str, Sequence[Sequence[Speaker]]],
    seed: int,
) -> list[PlannedUtterance]:
    """Plan some splits.

    near_misses: by keyword, the nearest first. speakers: by split, the voices of each engine.
    """
    planned: list[PlannedUtterance] = []
    for split in (split for split in SPLITS if split in sizes):
        index = SPLITS.index(split)
        rng = np.random.default_rng([seed, PLAN_SEED, index])
        writer = _TextWriter(language, rng)
        rows = _rows(sizes[split], split, language.keywords, near_misses, writer)
        planned += _utterances(
            rows, split, _speakers_in_turn(len(rows), speakers[split], rng), seed
        )
    return planned


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An utterance of the plan before it gets its id and speaker."""

    kind: str
    """keyword, confusable, sentence, word or noise."""
    text: str = ""
    """Input of the synthesiser; empty for noise."""
    transcript: str = ""
    """Its words; empty for noise."""
    keyword_id: int = -1
    """Index of the keyword, -1 for negatives."""
    duration_s: float = 0.0
    """Length of a noise; 0 for speech."""


class _TextWriter:
    """Writes the texts of utterances."""

    def __init__(self, language: Language, rng: np.random.Generator) -> None:
        self._language = language
        self._rng = rng
        self._separator = " " if language.word_share > 0 else ""
        self._pause = ", " if language.word_share > 0 else "，"

    def in_context(self, phrase: str, kind: str) -> _Row:
        """A phrase, alone or with words before or behind it."""
        rng = self._rng
        place = CONTEXTS[int(rng.choice(len(CONTEXTS), p=CONTEXT_SHARES[kind]))]
        text = phrase.lower()
        if place in ("behind", "between"):
            text = self._words(from_end=True) + self._gap() + text
        if place in ("before", "between"):
            text = text + self._gap() + self._words(from_end=False)
        return _Row(kind=kind, text=text, transcript=self._language.transcript(text))

    def general(self, duration_s: float) -> _Row:
        """A sentence, or isolated words where the language has them."""
        language, rng = self._language, self._rng
        kind = "word" if rng.random() < language.word_share else "sentence"
        text = language.word(rng) if kind == "word" else language.sentence(rng, duration_s)
        return _Row(kind=kind, text=text, transcript=language.transcript(text))

    def _gap(self) -> str:
        return self._pause if self._rng.random() < PAUSE_SHARE else self._separator

    def _words(self, *, from_end: bool) -> str:
        """The first or last words of a sentence, without punctuation."""
        sentence = self._language.transcript(self._language.sentence(self._rng, CONTEXT_S))
        units = sentence.lower().split() if self._separator else list(sentence)
        count = int(self._rng.integers(*CONTEXT_UNITS))
        return self._separator.join(units[-count:] if from_end else units[:count])


def _rows(
    size: WakeWordSize,
    split: str,
    keywords: Sequence[str],
    near_misses: Mapping[str, Sequence[str]],
    writer: _TextWriter,
) -> list[_Row]:
    """Rows of one split, in order."""
    rng = writer._rng
    rows: list[_Row] = []
    for keyword_id, keyword in enumerate(keywords):
        for _ in range(size.positives):
            row = writer.in_context(keyword, "keyword")
            rows.append(
                _Row(kind=row.kind, text=row.text, transcript=row.transcript, keyword_id=keyword_id)
            )
    for keyword in keywords:
        phrases = [
            phrase
            for place, phrase in enumerate(near_misses[keyword], 1)
            if split != "train" or place % UNSEEN_EVERY != 0
        ]
        chosen = in_turn(size.near_misses, phrases, rng) if phrases else []
        rows += [writer.in_context(phrase, "confusable") for phrase in chosen]
    rows += [writer.general(float(rng.uniform(*size.duration_s))) for _ in range(size.sentences)]
    durations = (float(rng.uniform(*size.duration_s)) for _ in range(size.noises))
    rows += [_Row(kind="noise", duration_s=duration_s) for duration_s in durations]
    return rows


def _speakers_in_turn(
    num_rows: int, engines: Sequence[Sequence[Speaker]], rng: np.random.Generator
) -> list[Speaker]:
    """One voice per row; within an engine its voices in turn.

    An engine's share grows with the logarithm of the number of its voices.
    """
    streams = [iter(in_turn(num_rows, voices, rng)) for voices in engines]
    weights = np.log2([1 + len(voices) for voices in engines])
    counts = np.zeros(len(engines))
    chosen = []
    for row in range(1, num_rows + 1):
        engine = int(np.argmax(weights * row / weights.sum() - counts))
        counts[engine] += 1
        chosen.append(next(streams[engine]))
    return chosen


def _utterances(
    rows: Sequence[_Row], split: str, speakers: Sequence[Speaker], seed: int
) -> list[PlannedUtterance]:
    counts = {"p": itertools.count(), "n": itertools.count()}
    planned = []
    for index, (row, speaker) in enumerate(zip(rows, speakers, strict=True)):
        sign = "n" if row.keyword_id < 0 else "p"
        planned.append(
            PlannedUtterance(
                utt_id=f"synth_{split}_{sign}_{next(counts[sign]):06d}",
                split=split,
                kind=row.kind,
                text=row.text,
                transcript=row.transcript,
                keyword_id=row.keyword_id,
                speaker="" if row.kind == "noise" else speaker.name,
                duration_s=row.duration_s,
                seed=(seed, PLAN_SEED, SPLITS.index(split), index),
                engine="espeak" if row.kind == "noise" else speaker.engine,
            )
        )
    return planned
