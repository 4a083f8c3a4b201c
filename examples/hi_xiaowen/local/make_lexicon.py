"""Write a lexicon: how the words of a text and of the keywords are pronounced.

Of keywords in Latin letters, the phonemes of every English word, espeak-ng's, one symbol each:
`COMPUTER k ə m p j u ɾ ɚ`. Of keywords in Chinese characters, the initial and final of every
character, without its tone: `店 d ian`. Words in the other script are left out; their tokens stay
letters or characters.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from phonetics import spoken
from pypinyin import Style, lazy_pinyin
from pypinyin.contrib.tone_convert import to_finals, to_initials

from wekws.dataset.manifest import kaldi_rows
from wekws.dataset.negatives import language_of, scripts_of
from wekws.dataset.vocabulary import alphabetic_words, parse_keywords
from wekws.errors import ConfigError
from wekws.files import atomic_path
from wekws.log import run
from wekws.score.pinyin import has_cjk

ACCENT = "en-us"


def main(argv: list[str] | None = None) -> int:
    """Write the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="training text, `id transcript`")
    parser.add_argument("--keywords", required=True, help='keywords, such as "JARVIS,SMART MIRROR"')
    parser.add_argument("--lexicon", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    keywords = parse_keywords(args.keywords)
    texts = [*keywords, *(row.value for row in kaldi_rows(args.text))]
    lexicon: Mapping[str, Sequence[str]]
    if language_of(keywords) == "zh":
        lexicon = initials_and_finals(texts)
        missing = [word for word in keywords if not set("".join(word.split())) <= lexicon.keys()]
        expected = "no initials and finals for it; expected Chinese characters"
    else:
        lexicon = pronunciations(texts)
        missing = [word for word in keywords if not _is_spoken(word, lexicon)]
        expected = "espeak-ng has no English phonemes for it; expected words in Latin letters"
    if missing:
        raise ConfigError(f"keyword {missing[0]}: {expected}")
    args.lexicon.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.lexicon) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.writelines(f"{word} {' '.join(lexicon[word])}\n" for word in sorted(lexicon))
    print(f"{args.lexicon}: {len(lexicon)} words")
    return 0


def _is_spoken(keyword: str, lexicon: Mapping[str, Sequence[str]]) -> bool:
    words = alphabetic_words(keyword)
    return bool(words) and all(word in lexicon for word in words)


def initials_and_finals(texts: Iterable[str]) -> dict[str, list[str]]:
    """Initial, if it has one, and final of every Chinese character: {"店": ["d", "ian"]}.

    The commonest reading counts.
    """
    found = {}
    for char in sorted({char for text in texts for char in text if has_cjk(char)}):
        syllable = lazy_pinyin(char, style=Style.NORMAL)[0]
        final = to_finals(syllable)
        if syllable != char and final:
            found[char] = [unit for unit in (to_initials(syllable), final) if unit]
    return found


def pronunciations(texts: Iterable[str]) -> dict[str, str]:
    """Phonemes of every English word, one symbol each: {"ALEXA": "ɐlɛksə"}."""
    found = {word for text in texts for word in alphabetic_words(text)}
    words = sorted(word for word in found if scripts_of(word) <= {"LATIN"})
    pairs = zip(words, spoken(words, ACCENT), strict=True)
    return {word: phonemes for word, phonemes in pairs if phonemes}


if __name__ == "__main__":
    sys.exit(run(main))
