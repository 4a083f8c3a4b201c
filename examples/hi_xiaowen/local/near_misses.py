"""Phrases that sound like a keyword without being it: what a detector must learn to reject.

Four kinds are found for any keyword: neighbours (words of a word list in place of the keyword or of
its parts), substitutions (one sound of the keyword replaced), parts (beginnings, ends, single
words) and orders (its words or characters in another order, or repeated).
"""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pypinyin
from compose import load_words
from espeak import library_paths
from phonetics import TONES, distances, from_pinyin, spoken, syllable_ipa
from pypinyin.constants import PHRASES_DICT
from pypinyin.contrib.tone_convert import to_finals, to_initials

from wekws.errors import ConfigError, DataError
from wekws.log import run

Kind = Literal["neighbour", "substitution", "part", "order"]
KINDS: tuple[Kind, ...] = ("neighbour", "substitution", "part", "order")

MIN_DISTANCE = 0.5  # below, a phrase would pass for the keyword itself
MAX_SHARE = 0.4  # of the keyword's length: above, a neighbour or a substitution is not near
PER_PIECE = 5  # neighbours tried for each half of a keyword
MAX_UNITS = 4  # longer keywords are not put in all orders
_WITHOUT_TONES = str.maketrans("", "", TONES)
VOWEL_RUN = re.compile("[AEIOUY]+")
RESPELT_ONSETS = [*"BDFGHJKLMNPRSTVWYZ", "BL", "BR", "CH", "DR", "FL", "FR", "GL", "GR", "PL", "PR"]
RESPELT_ONSETS += ["QU", "SH", "SK", "SL", "SM", "SN", "SP", "ST", "TH", "TR", "TW"]
RESPELT_MIDDLES = [*"BDFGHJKLMNPRSTVWYZ", "CH", "SH", "TH"]
RESPELT_CODAS = [*"BDFGJLMNPRSTVXZ", "CH", "CK", "LD", "LT", "ND", "NG", "NK", "NT", "RD", "RK"]
RESPELT_CODAS += ["RM", "RN", "RT", "SH", "SK", "ST", "TH"]
RESPELT_VOWELS = [*"AEIOU", "AI", "AR", "EE", "ER", "OA", "OI", "OO", "OR", "OW"]


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """A phrase that sounds like a keyword."""

    text: str
    """The phrase: upper-case words, or characters."""
    kind: Kind
    """Way in which it was found."""
    distance: float
    """Weighted edit distance of its phonemes to the keyword's, see phonetics.py."""
    phonemes: str
    """Its phonemes, one symbol each."""


class Sounds(Protocol):
    """Words and pronunciation of one language."""

    words: Sequence[str]
    """The word list."""
    accents: Sequence[str]
    """Pronunciations to look at, the main one first."""

    def units(self, text: str) -> list[str]:
        """Words of a text, or its characters."""

    def join(self, units: Iterable[str]) -> str:
        """Text of some words or characters."""

    def phonemes(self, texts: Sequence[str], accent: str) -> list[str]:
        """Phonemes of each text in one accent, one symbol each."""

    def parts(self, text: str) -> Iterator[str]:
        """Beginnings and ends of a text, and its single words."""

    def respelt(self, text: str) -> Iterator[str]:
        """The text with one sound replaced."""


class EnglishSounds:
    """English words, pronounced by espeak-ng."""

    accents: Sequence[str] = ("en-us", "en-gb-x-rp")

    def __init__(self, word_list: Path | None = None) -> None:
        """Read the word list; without one, the words of words/en.yaml."""
        library_paths()
        if word_list is not None:
            self.words: Sequence[str] = _read_words(word_list, upper=True)
            return
        lists = load_words("en")
        slots = itertools.chain.from_iterable(lists["slots"].values())
        found = " ".join([*slots, *lists["words"], *lists["templates"]]).upper()
        self.words = sorted(set(re.findall(r"(?<![{A-Z_])[A-Z]{2,}(?![A-Z_]*\})", found)))

    def units(self, text: str) -> list[str]:
        """Words of a text."""
        return text.split()

    def join(self, units: Iterable[str]) -> str:
        """Words with spaces between them."""
        return " ".join(units)

    def phonemes(self, texts: Sequence[str], accent: str) -> list[str]:
        """Phonemes of each text, as one of espeak-ng's voices pronounces it."""
        return spoken(texts, accent)

    def parts(self, text: str) -> Iterator[str]:
        """Runs of words; each word cut off behind one of its sounds, or begun at a syllable."""
        words = text.split()
        yield from _runs(words, " ")
        for place, word in enumerate(words):
            vowels = list(VOWEL_RUN.finditer(word))
            for cut in sorted({v.start() for v in vowels[1:]} | {v.end() for v in vowels}):
                yield " ".join([*words[:place], word[:cut]])
            for vowel in vowels[1:]:
                onsets = (o for o in RESPELT_ONSETS if word[: vowel.start()].endswith(o))
                start = vowel.start() - max(map(len, onsets), default=0)
                yield " ".join([word[start:], *words[place + 1 :]])

    def respelt(self, text: str) -> Iterator[str]:
        """Every run of consonants or vowels replaced by each of those that English often has."""
        for sound in re.finditer("[AEIOUY]+|[B-DF-HJ-NP-TV-XZ]+", text):
            before, behind = text[: sound.start()], text[sound.end() :]
            if VOWEL_RUN.fullmatch(sound.group()):
                others = RESPELT_VOWELS
            elif not before or before.endswith(" "):
                others = RESPELT_ONSETS
            elif not behind or behind.startswith(" "):
                others = RESPELT_CODAS
            else:
                others = RESPELT_MIDDLES
            yield from (before + other + behind for other in others)


class MandarinSounds:
    """Mandarin phrases, pronounced by pypinyin, tones included."""

    accents: Sequence[str] = ("cmn",)

    def __init__(self, word_list: Path | None = None) -> None:
        """Read the word list; without one, pypinyin's phrases of common characters."""
        common = _common_characters()
        if word_list is not None:
            self.words: Sequence[str] = _read_words(word_list, upper=False)
        else:
            phrases = (phrase for phrase in PHRASES_DICT if 2 <= len(phrase) <= 4)
            self.words = sorted(phrase for phrase in phrases if common.issuperset(phrase))
            self.words = [*self.words, *sorted(common)]
        self._character_of: dict[str, str] = {}
        for character in sorted(common, key=lambda c: c.encode("gb2312")):
            readings = pypinyin.pinyin(character, style=pypinyin.Style.TONE3, heteronym=True)[0]
            if len(readings) == 1:
                self._character_of.setdefault(readings[0], character)

    def units(self, text: str) -> list[str]:
        """Characters of a text."""
        return list(text)

    def join(self, units: Iterable[str]) -> str:
        """Characters without spaces."""
        return "".join(units)

    def phonemes(self, texts: Sequence[str], accent: str) -> list[str]:
        """Phonemes and tones of each text."""
        style = pypinyin.Style.TONE3
        return [from_pinyin(pypinyin.lazy_pinyin(text, style=style)) for text in texts]

    def parts(self, text: str) -> Iterator[str]:
        """Runs of two or more characters."""
        return (run for run in _runs(list(text), "") if len(run) > 1)

    def respelt(self, text: str) -> Iterator[str]:
        """Every syllable replaced by those with its initial or its final, in the same tone."""
        syllables = pypinyin.lazy_pinyin(text, style=pypinyin.Style.TONE3)
        for place, syllable in enumerate(syllables):
            initial, final, tone = _split(syllable)
            for other, character in self._character_of.items():
                other_initial, other_final, other_tone = _split(other)
                has_one = (initial == other_initial) != (final == other_final)
                if has_one and tone == other_tone:
                    yield text[:place] + character + text[place + 1 :]


def _split(syllable: str) -> tuple[str, str, str]:
    tone = syllable_ipa(syllable)[1]
    initial = to_initials(syllable, strict=True)
    return initial, to_finals(syllable, strict=True), tone


def _runs(units: Sequence[str], separator: str) -> Iterator[str]:
    """All runs of neighbouring units that are not the whole."""
    for length in range(len(units) - 1, 0, -1):
        for start in range(len(units) - length + 1):
            yield separator.join(units[start : start + length])


def _common_characters() -> set[str]:
    """The 3755 characters of GB 2312's first level, which every synthesiser knows."""
    pairs = itertools.product(range(0xB0, 0xD8), range(0xA1, 0xFF))
    decoded = (bytes(pair).decode("gb2312", errors="ignore") for pair in pairs)
    return {character for character in decoded if character}


def _read_words(path: Path, *, upper: bool) -> list[str]:
    """Read one word or phrase per line.

    Raises: DataError for a file that cannot be read or that has no words.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--word_list {path}: cannot be read as UTF-8 text ({error})") from error
    lines = (" ".join(line.split()) for line in (text.upper() if upper else text).splitlines())
    pattern = re.compile("[A-Z' ]+" if upper else "[\u4e00-\u9fff]+")
    words = sorted({line for line in lines if pattern.fullmatch(line)})
    if not words:
        kind = "Latin letters" if upper else "Chinese characters"
        raise DataError(f"--word_list {path}: no words; expected one per line, in {kind}")
    return words


LANGUAGES: dict[str, Callable[[Path | None], Sounds]] = {"en": EnglishSounds, "zh": MandarinSounds}


def language_of(keywords: Sequence[str]) -> Literal["en", "zh"]:
    """Language that the script of the keywords stands for.

    Raises: ConfigError for keywords in other scripts, or in both.
    """
    text = "".join(keywords)
    if re.fullmatch("[A-Za-z' -]+", text):
        return "en"
    if re.fullmatch("[\u4e00-\u9fff ]+", text):
        return "zh"
    raise ConfigError(
        f"--keywords {','.join(keywords)}: speech is synthesised for keywords in Latin letters "
        "(as English) or in Chinese characters (as Mandarin); found neither, or both"
    )


class NearMissFinder:
    """Finds near misses of the keywords of one detector."""

    def __init__(self, keywords: Sequence[str], sounds: Sounds) -> None:
        """Look up the phonemes of keywords and word list."""
        self._sounds = sounds
        self._keywords = list(keywords)
        self._main = sounds.accents[0]
        self._targets = {a: sounds.phonemes(self._keywords, a) for a in sounds.accents}
        self._spoken_words = sounds.phonemes(sounds.words, self._main)

    def find(self, keyword: str, count: int) -> list[NearMiss]:
        """Return up to `count` near misses of a keyword, the kinds in turn, the nearest first.

        None contains a keyword, in spelling or (nearly) in sound. The same call gives the same
        list, and a longer list begins with a shorter one.
        """
        target = self._targets[self._main][self._keywords.index(keyword)]
        candidates: dict[str, Kind] = {}
        for kind, texts in self._candidates(keyword, target):
            for text in texts:
                candidates.setdefault(text, kind)
        made = self._measured(target, candidates)
        limit = MAX_SHARE * len(target)
        ranked: dict[Kind, list[NearMiss]] = {kind: [] for kind in KINDS}
        sounds: set[str] = set()
        for near in sorted(made, key=lambda near: (near.distance, near.text)):
            toneless = near.phonemes.translate(_WITHOUT_TONES)
            if toneless in sounds:
                continue
            sounds.add(toneless)
            if near.kind in ("part", "order") or near.distance <= limit:
                ranked[near.kind].append(near)
        in_turn = itertools.chain(*itertools.zip_longest(*ranked.values()))
        return list(itertools.islice((near for near in in_turn if near), count))

    def _candidates(self, keyword: str, target: str) -> Iterator[tuple[Kind, Iterable[str]]]:
        """Phrases of each kind; one that two kinds make belongs to the first."""
        units = self._sounds.units(keyword)
        yield "part", self._sounds.parts(keyword)
        yield "order", self._orders(units)
        yield "neighbour", self._neighbours(keyword, units, target)
        yield "substitution", self._sounds.respelt(keyword)

    def _orders(self, units: Sequence[str]) -> Iterator[str]:
        if 1 < len(units) <= MAX_UNITS:
            yield from map(self._sounds.join, itertools.permutations(units))
        for place, unit in enumerate(units):
            yield self._sounds.join([*units[:place], unit, *units[place:]])
        if len(units) > 1:
            yield from (self._sounds.join([unit, unit]) for unit in units)

    def _neighbours(self, keyword: str, units: Sequence[str], target: str) -> Iterator[str]:
        """Words for the whole keyword, for each of its words, and pairs of words for two halves."""
        yield from self._nearest(target, 40)
        if len(units) > 1:
            for place, sound in enumerate(self._sounds.phonemes(units, self._main)):
                for other in self._nearest(sound, 20):
                    yield self._sounds.join([*units[:place], other, *units[place + 1 :]])
        for cut in range(2, len(target) - 1):
            pieces = (self._nearest(piece, PER_PIECE) for piece in (target[:cut], target[cut:]))
            yield from map(self._sounds.join, itertools.product(*pieces))

    def _nearest(self, phonemes: str, count: int) -> list[str]:
        costs = distances(phonemes, self._spoken_words)
        order = np.argsort(costs, kind="stable")[:count]
        return [self._sounds.words[index] for index in order]

    def _measured(self, target: str, candidates: dict[str, Kind]) -> list[NearMiss]:
        """The candidates that do not contain a keyword, with their distances."""
        spelt = ["".join(self._sounds.units(keyword)) for keyword in self._keywords]
        texts = [
            text
            for text in candidates
            if text and not any(k in "".join(self._sounds.units(text)) for k in spelt)
        ]
        nearest = np.full(len(texts), np.inf)
        for accent, targets in self._targets.items():
            spoken = self._sounds.phonemes(texts, accent)
            for other in targets:
                nearest = np.minimum(nearest, distances(other, spoken, inside=True))
        spoken = self._sounds.phonemes(texts, self._main)
        far = distances(target, spoken)
        return [
            NearMiss(text=text, kind=candidates[text], distance=float(d), phonemes=phonemes)
            for text, phonemes, d, near in zip(texts, spoken, far, nearest, strict=True)
            if phonemes and near >= MIN_DISTANCE
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the near misses of some keywords."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keywords", required=True, help="keywords, separated by commas")
    parser.add_argument(
        "--language", choices=LANGUAGES, help="language (default: from the script of the keywords)"
    )
    parser.add_argument(
        "--word_list",
        type=Path,
        help="file with one word or phrase per line (default: words/en.yaml; for Mandarin, the "
        "phrases that pypinyin knows)",
    )
    parser.add_argument(
        "--count", type=int, default=40, help="near misses per keyword (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    keywords = [" ".join(k.upper().split()) for k in arguments.keywords.split(",") if k.strip()]
    if not keywords:
        raise ConfigError('--keywords: none; expected --keywords "ONE,TWO WORDS"')
    sounds = LANGUAGES[arguments.language or language_of(keywords)](arguments.word_list)
    finder = NearMissFinder(keywords, sounds)
    print("keyword\tkind\tdistance\ttext\tphonemes")
    for keyword in keywords:
        for near in finder.find(keyword, arguments.count):
            print(keyword, near.kind, f"{near.distance:.2f}", near.text, near.phonemes, sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
