"""Mandarin texts of the synthesised corpus: sentences, confusables, a check for homophones."""

import itertools

import numpy as np
import pypinyin
from compose import Composer, load_words
from language import PhonemesOf

INITIALS = ("zh", "ch", "sh", *"bpmfdtnlgkhjqxrzcswy")
PAUSES = "，。？！、 "
MIN_DIFFERENCES = 2  # initials and finals in which a made-up confusable differs from its keyword


def syllables(text: str) -> list[str]:
    """Toneless pinyin syllables of a text, pauses left out."""
    spoken = "".join(character for character in text if character not in PAUSES)
    return list(pypinyin.lazy_pinyin(spoken))


def split_syllable(syllable: str) -> tuple[str, str]:
    """(initial, final) of a toneless syllable; -ng counts as -n (many speakers merge them)."""
    initial = next((i for i in INITIALS if syllable.startswith(i)), "")
    final = syllable[len(initial) :]
    return initial, final[:-1] if final.endswith("ng") else final


def differences(text: str, keyword: str) -> int:
    """Smallest number of initials and finals in which any part of the text differs from a keyword.

    0 means that the text contains the keyword, or a homophone that differs in tone alone. A text
    shorter than the keyword differs by two for every missing syllable.
    """
    spoken = [split_syllable(s) for s in syllables(text)]
    wanted = [split_syllable(s) for s in syllables(keyword)]
    missing = max(0, len(wanted) - len(spoken))
    if missing:
        wanted, spoken = spoken, wanted
    counts = []
    for start in range(len(spoken) - len(wanted) + 1):
        pairs = zip(spoken[start:], wanted, strict=False)
        counts.append(sum((a[0] != b[0]) + (a[1] != b[1]) for a, b in pairs))
    return min(counts, default=0) + 2 * missing


class Mandarin:
    """Sentences and confusables for a list of Mandarin keywords."""

    voices: tuple[str, ...] = ("cmn",)
    units_per_second = 4.2  # characters per second, at the speaking rates of synthesise.py
    word_share = 0.0  # isolated characters are no natural utterances

    def __init__(self, keywords: list[str]) -> None:
        """Load the word lists."""
        self.keywords = keywords
        words = load_words("zh")
        self._listed = words["keyword_confusables"]
        self._composer = Composer(words, joiner_pause="")
        slots = words["slots"].values()
        self._characters = sorted(set("".join(itertools.chain.from_iterable(slots))))

    def is_clean(self, text: str) -> bool:
        """Whether the text contains no keyword and no homophone that differs in tone alone."""
        return all(differences(text, keyword) > 0 for keyword in self.keywords)

    def sentence(self, rng: np.random.Generator, duration_s: float) -> str:
        """Make a sentence of about this duration, without a keyword."""
        while True:
            text = self._composer.sentence(rng, duration_s * self.units_per_second, len)
            if self.is_clean(text):
                return text

    def word(self, rng: np.random.Generator) -> str:
        """Mandarin has no isolated words (`word_share` is 0)."""
        raise NotImplementedError("Mandarin has no isolated words")

    def transcript(self, text: str) -> str:
        """Transcript of a spoken text: its characters, without pauses."""
        return "".join(character for character in text if character not in PAUSES)

    def confusables(
        self, keyword: str, count: int, seed: int, phonemes_of: PhonemesOf
    ) -> list[str]:
        """Phrases that sound like the keyword: first listed ones, then made-up ones up to `count`.

        phonemes_of: not used; pinyin is enough for Mandarin.
        """
        rng = np.random.default_rng([seed, self.keywords.index(keyword)])
        found = [text for text in self._listed.get(keyword, []) if self.is_clean(text)]
        for _ in range(100 * count):
            if len(found) >= count:
                break
            text = self._vary(keyword, rng)
            nearest = min(differences(text, other) for other in self.keywords)
            if nearest >= MIN_DIFFERENCES and text not in found:
                found.append(text)
        return found

    def _vary(self, keyword: str, rng: np.random.Generator) -> str:
        """Drop, swap or replace characters of the keyword."""
        characters = list(keyword)
        place = int(rng.integers(len(characters)))
        other = self._characters[int(rng.integers(len(self._characters)))]
        action = rng.choice(["drop", "replace", "replace", "replace_two", "swap", "replace_add"])
        if action == "drop":
            del characters[place]
        elif action == "swap":
            neighbour = (place + 1) % len(characters)
            characters[place], characters[neighbour] = characters[neighbour], characters[place]
        else:
            characters[place] = other
        if action == "replace_two":
            characters[int(rng.integers(len(characters)))] = rng.choice(self._characters)
        if action == "replace_add":
            characters.append(str(rng.choice(self._characters)))
        return "".join(characters)
