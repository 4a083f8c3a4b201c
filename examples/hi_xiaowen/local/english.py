"""What the synthesised English corpus says: sentences, words, phrases near to the keywords."""

import re

import numpy as np
from compose import Composer, choose, load_words

ONSETS = ["b", "bl", "br", "ch", "d", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p"]
ONSETS += ["pl", "r", "s", "sh", "sl", "sp", "st", "t", "th", "tr", "v", "w", "y", "z"]
VOWELS = ["a", "e", "i", "o", "u", "ee", "oo", "ay", "ow", "ar"]
VOWEL_RUN = re.compile(r"[aeiouy]+")
MIN_PHONEME_EDITS = 2
MARKS = re.compile(r"[',|_: %=;#0-9!]|\(\w+\)")  # stress, length, pauses, language switches


def letters(text):
    """Letters of a text alone, upper case: `smart mirror!` -> SMARTMIRROR."""
    return re.sub(r"[^A-Z]", "", text.upper())


def closest_edits(text, keyword):
    """Fewest edits that turn some stretch of the text into the keyword (Sellers 1980)."""
    costs = [0] * (len(text) + 1)
    for row, wanted in enumerate(keyword, 1):
        previous, costs = costs, [row]
        for column, found in enumerate(text, 1):
            replaced = previous[column - 1] + (wanted != found)
            costs.append(min(replaced, previous[column] + 1, costs[-1] + 1))
    return min(costs)


class English:
    """Sentences, words and confusables for a list of English keywords."""

    voices = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
    units_per_second = 3.4  # words, at the rates of synthesise.py
    word_share = 0.25

    def __init__(self, keywords):
        """Load the word lists."""
        self.keywords = keywords
        words = load_words("en")
        self._composer = Composer(words, joiner_pause=" ")
        slots = [entry for entries in words["slots"].values() for entry in entries]
        vocabulary = {w.lower() for entry in slots + words["words"] for w in entry.split()}
        self._words = sorted(word for word in vocabulary if self.is_clean(word))

    def is_clean(self, text):
        """Whether the letters of no keyword occur in the text, not even inside a word."""
        return not any(letters(keyword) in letters(text) for keyword in self.keywords)

    def sentence(self, rng, duration_s):
        """A sentence of about that duration that holds no keyword."""
        num_words = duration_s * self.units_per_second
        while True:
            text = self._composer.sentence(rng, num_words, lambda t: len(t.split()))
            if self.is_clean(text):
                return text

    def word(self, rng):
        """One to three words on their own, as long as a keyword is."""
        while True:
            text = " ".join(choose(rng, self._words) for _ in range(1 + int(rng.integers(3))))
            if self.is_clean(text):
                return text

    def transcript(self, text):
        """Transcript of a spoken text: upper-case words, without punctuation."""
        return " ".join(re.sub(r"[^A-Z' ]", " ", text.upper()).split())

    def confusables(self, keyword, count, seed, phonemes_of):
        """Phrases near to the keyword in sound, but at least two phonemes from every keyword.

        phonemes_of: texts -> phoneme strings.
        Words of the list that are spelt alike, then dropped, swapped and replaced words and
        syllables; what espeak-ng would say (nearly) like a keyword is left out.
        """
        rng = np.random.default_rng([seed, self.keywords.index(keyword)])
        made = self._alike(keyword, count // 4)
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

    def _alike(self, keyword, count):
        """Words of the list spelt most like a word of the keyword, in its place."""
        words = keyword.lower().split()
        made = []
        for place, word in enumerate(words):
            near = sorted(self._words, key=lambda other: (closest_edits(other, word), other))
            made += [" ".join(words[:place] + [n] + words[place + 1 :]) for n in near[:count]]
        return made

    def _vary(self, words, rng):
        """Drop, swap or replace a word, or change the sounds of one."""
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


def _respell(word, action, rng):
    """Another onset, another vowel, another tail, or the last syllable cut off."""
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
