"""Who says what: the list of utterances of a synthesised corpus, before any sound is made."""

import csv
import itertools
from dataclasses import dataclass

import numpy as np
from compose import WORDS_DIR

SPLITS = ("train", "dev", "test")
CONFUSABLES_PER_KEYWORD = 120
UNSEEN_SHARE = 0.25  # of the confusables: dev and test say them, train never does


@dataclass(frozen=True, kw_only=True)
class SplitSize:
    """Numbers of utterances in one split, for up to two keywords.

    More keywords share the positives of two, and have as many more confusables.
    """

    positives: int
    """Utterances of each keyword."""
    sentences: int
    """General sentences (and isolated words where the language has them)."""
    confusables: int
    """Phrases that sound near to a keyword."""
    noises: int
    """Stretches without speech."""
    duration_s: tuple[float, float]
    """Range of the aimed-at duration of sentences and noises."""


def _size(positives, sentences, confusables, noises, duration_s):
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
}
# What `small` learns from, to the byte, and 30 hours of negatives, so that 1 false alarm an hour is
# thirty and not three.
SIZES["long_test"] = SIZES["small"] | {"test": _size(1500, 15840, 540, 1620, (4.0, 8.0))}


@dataclass(frozen=True, kw_only=True)
class PlannedUtterance:
    """One utterance to be said."""

    utt_id: str
    split: str
    kind: str
    """keyword, sentence, word, confusable or noise."""
    text: str
    """What the synthesiser is given; empty for noise."""
    transcript: str
    """The words alone; empty for noise."""
    keyword_id: int
    """Index of the keyword, -1 for negatives."""
    speaker: str
    """Voice variant; empty for noise."""
    duration_s: float
    """Length of a noise; 0 for speech."""
    seed: tuple[int, ...]
    """Seeds everything that is drawn for its sound."""


def read_voices():
    """Voice variants of each split, from words/voices.tsv."""
    voices = {split: [] for split in SPLITS}
    with open(WORDS_DIR / "voices.tsv", encoding="utf-8") as stream:
        rows = (line for line in stream if not line.startswith("#"))
        for variant, split in csv.reader(rows, delimiter="\t"):
            voices[split].append(variant)
    return voices


def plan_corpus(size, language, seed, phonemes_of):
    """Plan all splits; no sentence is said in two of them.

    language: a Mandarin or English object. phonemes_of: texts -> phoneme strings.
    """
    confusables = {
        keyword: language.confusables(keyword, CONFUSABLES_PER_KEYWORD, seed, phonemes_of)
        for keyword in language.keywords
    }
    voices = read_voices()
    used, planned = set(), []
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, index])
        phrases = _confusables_of(split, confusables)
        rows = _split_texts(SIZES[size][split], language, phrases, used, rng)
        speakers = _in_turn(len(rows), voices[split], rng)
        planned += _utterances(rows, split, language, speakers, seed)
    return planned


def _confusables_of(split, confusables):
    """Phrases of a split; every fourth is kept from training."""
    stride = round(1 / UNSEEN_SHARE)
    phrases = []
    for made in confusables.values():
        keep = [t for i, t in enumerate(made) if split != "train" or i % stride != stride - 1]
        phrases += [text for text in keep if text not in phrases]
    return phrases


def _split_texts(size, language, phrases, used, rng):
    """Rows of (kind, text, keyword id, noise duration in s)."""
    rows = []
    pairs = max(1.0, len(language.keywords) / 2)
    for keyword_id, keyword in enumerate(language.keywords):
        rows += [("keyword", keyword, keyword_id, 0.0)] * round(size.positives / pairs)
    for _ in range(size.sentences):
        if rng.random() < language.word_share:
            rows.append(("word", language.word(rng), -1, 0.0))
            continue
        rows.append(("sentence", _fresh_sentence(size, language, used, rng), -1, 0.0))
    if phrases:
        said = _in_turn(round(size.confusables * pairs), phrases, rng)
        rows += [("confusable", text, -1, 0.0) for text in said]
    rows += [("noise", "", -1, float(rng.uniform(*size.duration_s))) for _ in range(size.noises)]
    return rows


def _fresh_sentence(size, language, used, rng):
    """A sentence that no split has said before (one that has, after 20 tries)."""
    for _ in range(20):
        text = language.sentence(rng, rng.uniform(*size.duration_s))
        if text not in used:
            break
    used.add(text)
    return text


def _in_turn(num_rows, options, rng):
    """An option for each row; in every run of len(options) rows each comes once."""
    rounds = [rng.permutation(len(options)) for _ in range(-(-num_rows // len(options)))]
    return [options[i] for i in itertools.islice(itertools.chain(*rounds), num_rows)]


def _utterances(rows, split, language, speakers, seed):
    """Rows with ids, speakers and seeds."""
    counts = {"p": itertools.count(), "n": itertools.count()}
    for index, ((kind, text, keyword_id, duration_s), speaker) in enumerate(
        zip(rows, speakers, strict=True)
    ):
        sign = "n" if keyword_id < 0 else "p"
        yield PlannedUtterance(
            utt_id=f"{split}_{sign}_{next(counts[sign]):06d}",
            split=split,
            kind=kind,
            text=text,
            transcript=language.transcript(text),
            keyword_id=keyword_id,
            speaker="" if kind == "noise" else speaker,
            duration_s=duration_s,
            seed=(seed, SPLITS.index(split), index),
        )
