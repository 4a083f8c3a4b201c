"""English texts of the synthesised corpus: sentences, words, phrases that sound like a keyword."""

import re

import numpy as np
from compose import Composer, choose, load_words
from language import PhonemesOf

ONSETS = ["b", "bl", "br", "ch", "d", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p"]
ONSETS += ["pl", "r", "s", "sh", "sl", "sp", "st", "t", "th", "tr", "v", "w", "y", "z"]
VOWELS = ["a", "e", "i", "o", "u", "ee", "oo", "ay", "ow", "ar"]
VOWEL_RUN = re.compile(r"[aeiouy]+")
MIN_PHONEME_EDITS = 2
MARKS = re.compile(r"[',|_: %=;#0-9!]|\(\w+\)")  # stress, length, pauses, language switches


def letters(text: str) -> str:
    """Keep only the letters of a text, in upper case: `smart mirror!` -> SMARTMIRROR."""
    return re.sub(r"[^A-Z]", "", text.upper())


def closest_edits(text: str, keyword: str) -> int:
    """Smallest edit distance between the keyword and any part of the text (Sellers 1980)."""
    costs = [0] * (len(text) + 1)
    for row, wanted in enumerate(keyword, 1):
        previous, costs = costs, [row]
        for column, found in enumerate(text, 1):
            replaced = previous[column - 1] + (wanted != found)
            costs.append(min(replaced, previous[column] + 1, costs[-1] + 1))
    return min(costs)


class English:
    """Sentences, words and confusables for a list of English keywords."""

    voices: tuple[str, ...] = (
        *("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029"),
    )
    units_per_second = 3.4  # words per second, at the speaking rates of synthesise.py
    word_share = 0.25

    def __init__(self, keywords: list[str]) -> None:
        """Load the word lists."""
        self.keywords = keywords
        words = load_words("en")
        self._composer = Composer(words, joiner_pause=" ")
        slots = [entry for entries in words["slots"].values() for entry in entries]
        vocabulary = {w.lower() for entry in slots + words["words"] for w in entry.split()}
        self._words = sorted(word for word in vocabulary if self.is_clean(word))

    def is_clean(self, text: str) -> bool:
        """Whether the text contains no keyword, not even across or inside words."""
        return not any(letters(keyword) in letters(text) for keyword in self.keywords)

    def sentence(self, rng: np.random.Generator, duration_s: float) -> str:
        """Make a sentence of about this duration, without a keyword."""
        num_words = duration_s * self.units_per_second
        while True:
            text = self._composer.sentence(rng, num_words, lambda t: len(t.split()))
            if self.is_clean(text):
                return text

    def word(self, rng: np.random.Generator) -> str:
        """Draw one to three isolated words, about as long as a keyword."""
        while True:
            text = " ".join(choose(rng, self._words) for _ in range(1 + int(rng.integers(3))))
            if self.is_clean(text):
                return text

    def transcript(self, text: str) -> str:
        """Transcript of a spoken text: upper-case words, without punctuation."""
        return " ".join(re.sub(r"[^A-Z' ]", " ", text.upper()).split())

    def confusables(
        self, keyword: str, count: int, seed: int, phonemes_of: PhonemesOf
    ) -> list[str]:
        """Phrases that sound like the keyword, at least two phonemes away from every keyword.

        First come words of the list with similar spelling, then variants with dropped, swapped or
        replaced words and syllables. A phrase that espeak-ng pronounces (nearly) like a keyword is
        left out.
        """
        rng = np.random.default_rng([seed, self.keywords.index(keyword)])
        made = self._similar_spelling(keyword, count // 4)
        for _ in range(100 * count):
            if len(made) >= 2 * count:
                break
            text = self._vary(keyword.lower().split(), rng)
            if text and text not in made:
                made.append(text)
        sounds = phonemes_of([word.lower() for word in self.keywords] + made)
        sounds = [MARKS.sub("", line) for line in sounds]
        targets, spoken = sounds[: len(self.keywords)], sounds[len(self.keywords) :]
        kept = [
            text
            for text, phonemes in zip(made, spoken, strict=True)
            if self.is_clean(text)
            and min(closest_edits(phonemes, target) for target in targets) >= MIN_PHONEME_EDITS
        ]
        return kept[:count]

    def _similar_spelling(self, keyword: str, count: int) -> list[str]:
        """The keyword with one word replaced by a listed word of the most similar spelling."""
        words = keyword.lower().split()
        made = []
        for place, word in enumerate(words):
            near = sorted(self._words, key=lambda other: (closest_edits(other, word), other))
            made += [" ".join(words[:place] + [n] + words[place + 1 :]) for n in near[:count]]
        return made

    def _vary(self, words: list[str], rng: np.random.Generator) -> str:
        """Drop, swap or replace one word, or change the sounds of one."""
        place = int(rng.integers(len(words)))
        actions = ["onset", "vowel", "tail", "cut", "add"]
        actions += ["drop", "swap", "replace", "replace"] if len(words) > 1 else ["onset"]
        action = choose(rng, actions)
        if action == "drop":
            return " ".join(words[:place] + words[place + 1 :])
        if action == "swap":
            return " ".join(words[place:] + words[:place])
        if action == "add":
            return " ".join([choose(rng, self._words)] + words[place:])
        if action == "replace":
            changed = choose(rng, self._words)
        else:
            changed = _respell(words[place], action, rng)
        return " ".join(words[:place] + [changed] + words[place + 1 :])


def _respell(word: str, action: str, rng: np.random.Generator) -> str:
    """Change the onset, one vowel or the last syllable of a word, or cut its last syllable."""
    runs = list(VOWEL_RUN.finditer(word))
    if not runs:
        return choose(rng, ONSETS) + word
    run = runs[int(rng.integers(len(runs)))]
    if action == "onset":
        return choose(rng, ONSETS) + word[runs[0].start() :]
    if action == "vowel":
        return word[: run.start()] + choose(rng, VOWELS) + word[run.end() :]
    if action == "cut" and len(runs) > 1:
        return word[: runs[-1].start()]
    return word[: runs[-1].start()] + choose(rng, VOWELS) + choose(rng, ONSETS)
