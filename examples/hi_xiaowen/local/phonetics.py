"""Phonemes as strings of one symbol each, and how far apart two such strings sound.

The distance is a weighted edit distance (Levenshtein). Replacing a phoneme costs more the less the
two have in common: place, manner and voicing of consonants, height, backness and rounding of
vowels. The weights are set by hand: /p/ for /b/ 0.3, /p/ for /k/ 0.6, /p/ for /s/ 0.7, a vowel for
a consonant 1.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from espeak import ipa_of
from processes import in_fresh_processes
from pypinyin.contrib.tone_convert import to_finals, to_initials

# Place from the lips (0) to the glottis (5); manner from closed (0) to open (3); voicing, -1 for
# aspirated. Affricates are one symbol.
CONSONANTS = {
    **{"p": (0, 0, 0), "b": (0, 0, 1), "P": (0, 0, -1), "m": (0, 2, 1), "w": (1, 3, 1)},
    **{"f": (0.5, 1, 0), "v": (0.5, 1, 1), "θ": (1, 1, 0), "ð": (1, 1, 1)},
    **{"t": (1.5, 0, 0), "d": (1.5, 0, 1), "T": (1.5, 0, -1), "n": (1.5, 2, 1)},
    **{"s": (1.5, 1, 0), "z": (1.5, 1, 1), "l": (1.5, 3.3, 1), "ɾ": (1.5, 0.5, 1)},
    **{"ʦ": (1.5, 0.5, 0), "C": (1.5, 0.5, -1), "ɹ": (2, 3, 1)},
    **{"ʂ": (2, 1, 0), "ʐ": (2, 1.5, 1), "ꭧ": (2, 0.5, 0), "Q": (2, 0.5, -1)},
    **{"ʃ": (2.2, 1, 0), "ʒ": (2.2, 1, 1), "ʧ": (2.2, 0.5, 0), "ʤ": (2.2, 0.5, 1)},
    **{"ɕ": (2.7, 1, 0), "ʨ": (2.7, 0.5, 0), "J": (2.7, 0.5, -1), "j": (3, 3, 1)},
    **{"k": (4, 0, 0), "ɡ": (4, 0, 1), "K": (4, 0, -1), "ŋ": (4, 2, 1), "x": (4.2, 1, 0)},
    **{"h": (5, 1, 0), "ʔ": (5, 0, 0)},
}
# Height from open (0) to close (3), backness from front (0) to back (2), rounding.
VOWELS = {
    **{"i": (3, 0, 0), "ɪ": (2.5, 0.3, 0), "e": (2, 0, 0), "ɛ": (1.2, 0, 0), "æ": (0.4, 0.2, 0)},
    **{"a": (0, 1, 0), "ɐ": (0.6, 1, 0), "ə": (1.5, 1, 0), "ɜ": (1.3, 1, 0), "ɚ": (1.5, 1, 0.5)},
    **{"ʌ": (1, 1.6, 0), "ɑ": (0, 2, 0), "ɒ": (0, 2, 1), "ɔ": (1, 2, 1), "o": (2, 2, 1)},
    **{"ɤ": (2, 2, 0), "ʊ": (2.5, 1.7, 1), "u": (3, 2, 1), "y": (3, 0, 1), "ɨ": (3, 1, 0)},
}
GLIDES = {"j": "iy", "w": "uʊ", "ɹ": "ɚɜ"}  # consonants that are nearly these vowels
TONES = "12345"  # of Mandarin
SYMBOLS = "".join((*CONSONANTS, *VOWELS, *TONES))
UNKNOWN = len(SYMBOLS)  # any other symbol
GLIDE_COST = 0.4
TONE_COST = 0.2
INSERT_COST = 0.6
WEAK_COST = 0.4  # of inserting or leaving out one of these
WEAK = "əhjw"
REDUCED_COST = 0.35  # at most, of a schwa for another vowel: speakers differ in what they reduce
MERGED_COST = 0.25  # of n for ŋ, which many speakers of Mandarin merge

ASPIRATED = {"pʰ": "P", "tʰ": "T", "kʰ": "K", "ʦʰ": "C", "ꭧʰ": "Q", "ʨʰ": "J"}
SPELLINGS = {"tʃ": "ʧ", "dʒ": "ʤ", "ᵻ": "ɪ", "g": "ɡ", "r": "ɹ", "χ": "x"} | ASPIRATED
MARKS = re.compile(r"\(\w+\)|[^\w]|[ˈˌː_0-9]")  # language switches, stress, length, spaces

# Pinyin to IPA, with affricates as one symbol each (as Kokoro has them too).
INITIALS = {
    **{"zh": "ꭧ", "ch": "ꭧʰ", "sh": "ʂ", "b": "p", "p": "pʰ", "d": "t", "t": "tʰ", "g": "k"},
    **{"k": "kʰ", "h": "x", "j": "ʨ", "q": "ʨʰ", "x": "ɕ", "r": "ʐ", "z": "ʦ", "c": "ʦʰ"},
    **{initial: initial for initial in "mfnls"},
}
FINALS = {
    **{"a": "a", "o": "wo", "e": "ɤ", "i": "i", "u": "u", "v": "y", "ai": "ai", "ei": "ei"},
    **{"ao": "au", "ou": "ou", "an": "an", "en": "ən", "ang": "aŋ", "eng": "əŋ", "er": "aɚ"},
    **{"ia": "ja", "ie": "je", "iao": "jau", "iou": "jou", "ian": "jɛn", "in": "in"},
    **{"iang": "jaŋ", "ing": "iŋ", "ua": "wa", "uo": "wo", "uai": "wai", "uei": "wei"},
    **{"uan": "wan", "uen": "wən", "uang": "waŋ", "ueng": "wəŋ", "ong": "uŋ", "ve": "ye"},
    **{"van": "yɛn", "vn": "yn", "iong": "juŋ", "io": "jo", "ê": "ɛ", "m": "m", "n": "n"},
    **{"ng": "ŋ"},
}
BUZZED = ("zh", "ch", "sh", "r", "z", "c", "s")  # initials after which pinyin's i is no /i/


def from_ipa(ipa: str) -> str:
    """Reduce IPA as espeak-ng writes it to one symbol per phoneme: `kəmpjˈuːɾɚ` -> kəmpjuɾɚ."""
    symbols = MARKS.sub("", unicodedata.normalize("NFC", ipa))
    for written, symbol in SPELLINGS.items():
        symbols = symbols.replace(written, symbol)
    return symbols


def spoken(texts: Sequence[str], accent: str) -> list[str]:
    """Phonemes of each text, as one of espeak-ng's voices pronounces it, such as en-us or nl."""
    task = functools.partial(ipa_of, accent)
    found = next(in_fresh_processes(task, [[text.lower() for text in texts]], 1))
    return [from_ipa(ipa) for ipa in found]


def syllable_ipa(syllable: str) -> tuple[str, str]:
    """IPA and tone digit of a pinyin syllable in the style of `xiao3` (5: neutral tone)."""
    tone = syllable[-1] if syllable[-1:].isdigit() else "5"
    plain = syllable.rstrip("0123456789")
    initial = to_initials(plain, strict=True)
    final = to_finals(plain, strict=True)
    if final == "i" and initial in BUZZED:
        return INITIALS[initial] + "ɨ", tone
    return INITIALS.get(initial, initial) + FINALS.get(final, final), tone


def from_pinyin(syllables: Sequence[str]) -> str:
    """Phonemes and tones of pinyin syllables with tone digits: `xiao3` -> ɕjau3."""
    made = "".join("".join(syllable_ipa(syllable)) for syllable in syllables)
    for written, symbol in ASPIRATED.items():
        made = made.replace(written, symbol)
    return made


def replacement_cost(first: str, second: str) -> float:
    """Cost of one phoneme in place of another, 0 to 1 (above that: never)."""
    if first == second:
        return 0.0
    if first in TONES or second in TONES:
        return TONE_COST if first in TONES and second in TONES else 2 * INSERT_COST + 1
    if {first, second} == {"n", "ŋ"}:
        return MERGED_COST
    if first in CONSONANTS and second in CONSONANTS:
        place, manner, voicing = np.abs(np.subtract(CONSONANTS[first], CONSONANTS[second]))
        return float(min(1, 0.6 * min(1, place / 3) + 0.3 * manner + 0.3 * min(1, voicing)))
    if first in VOWELS and second in VOWELS:
        height, backness, rounding = np.abs(np.subtract(VOWELS[first], VOWELS[second]))
        limit = REDUCED_COST if "ə" in (first, second) else 1
        return float(min(limit, 0.25 * height + 0.25 * backness + 0.15 * rounding))
    is_glide = second in GLIDES.get(first, "") or first in GLIDES.get(second, "")
    return GLIDE_COST if is_glide else 1.0


def _cost_tables() -> tuple[np.ndarray, np.ndarray]:
    """Costs of replacing (S + 1, S + 1) and of inserting (S + 1,) a symbol, the last unknown."""
    replace = np.ones((UNKNOWN + 1, UNKNOWN + 1))
    replace[:-1, :-1] = [[replacement_cost(a, b) for b in SYMBOLS] for a in SYMBOLS]
    insert = [WEAK_COST if s in WEAK else TONE_COST if s in TONES else INSERT_COST for s in SYMBOLS]
    return replace, np.array([*insert, INSERT_COST])


_REPLACE, _INSERT = _cost_tables()
_INDEX = {symbol: index for index, symbol in enumerate(SYMBOLS)}


def distances(wanted: str, spoken: Sequence[str], *, inside: bool = False) -> np.ndarray:
    """Distance between one phoneme string and each of several.

    inside: distance to the closest part of each spoken string (Sellers 1980), so that 0 means that
    it contains the wanted one.
    Returns: (len(spoken),) float64.
    """
    length = max(map(len, spoken), default=0)
    indices = np.full((len(spoken), length), UNKNOWN)
    for row, text in enumerate(spoken):
        indices[row, : len(text)] = [_INDEX.get(symbol, UNKNOWN) for symbol in text]
    inserted = _INSERT[indices].T  # (length, number of texts)
    first = np.zeros((1, len(spoken)))
    costs = np.concatenate([first, inserted * (not inside)]).cumsum(axis=0)
    for symbol in (_INDEX.get(symbol, UNKNOWN) for symbol in wanted):
        replaced = costs[:-1] + _REPLACE[symbol][indices.T]
        left_out = costs + _INSERT[symbol]
        costs = left_out
        for place in range(length):
            best = np.minimum(replaced[place], costs[place] + inserted[place])
            costs[place + 1] = np.minimum(left_out[place + 1], best)
    ends = np.array([len(text) for text in spoken], int)
    if inside:
        beyond = np.arange(length + 1)[:, None] > ends
        return np.asarray(np.where(beyond, np.inf, costs).min(axis=0))
    return costs[ends, np.arange(len(spoken))]
