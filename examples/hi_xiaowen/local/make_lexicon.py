"""Write a lexicon: how the words of a text and of the keywords are pronounced.

Of keywords in Latin letters, the phonemes of every English word, espeak-ng's, one symbol each:
`COMPUTER k ə m p j u ɾ ɚ`. Words of another language have it at their end, `WATER@NL ʋ a t ə ɹ`; in
a language that espeak-ng does not speak they are filler. Of keywords in Chinese characters, the
initial and final of every character, without its tone: `店 d ian`. Words in the other script are
left out; their tokens stay letters or characters.
"""

import argparse
import collections
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from phonetics import spoken
from pypinyin import Style, lazy_pinyin
from pypinyin.contrib.tone_convert import to_finals, to_initials

from wekws.dataset.manifest import kaldi_rows
from wekws.dataset.negatives import language_of, scripts_of
from wekws.dataset.vocabulary import (
    FILLER_TOKEN,
    alphabetic_words,
    normalise,
    parse_keywords,
    split_language,
)
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path
from wekws.log import run
from wekws.score.pinyin import has_cjk

logger = logging.getLogger(__name__)

ACCENT = "en-us"
VOICES = {"zh": "cmn"}  # of languages that espeak-ng calls otherwise


def main(argv: list[str] | None = None) -> int:
    """Write the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--text", type=Path, action="append", required=True,
        help="text, `id transcript`; may be repeated",
    )  # fmt: skip
    parser.add_argument("--keywords", required=True, help='keywords, such as "JARVIS,SMART MIRROR"')
    parser.add_argument("--lexicon", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    keywords = parse_keywords(args.keywords)
    texts = [*keywords, *(row.value for path in args.text for row in kaldi_rows(path))]
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


def pronunciations(texts: Iterable[str]) -> dict[str, Sequence[str]]:
    """Units of every English word and of every word with its language.

    Phonemes, one symbol each, {"ALEXA": "ɐlɛksə"}, or one filler.
    """
    english = set[str]()
    foreign = collections.defaultdict[str, set[str]](set)
    for word in (word for text in texts for word in normalise(text).split()):
        plain, language = split_language(word)
        if language:
            foreign[language].add(plain)
        else:
            english.update(alphabetic_words(word))
    words = sorted(word for word in english if scripts_of(word) <= {"LATIN"})
    found: dict[str, Sequence[str]] = _spoken_words(words, ACCENT)
    for language, plain_words in sorted(foreign.items()):
        words = sorted(plain_words)
        try:
            units = _spoken_words(words, VOICES.get(language, language))
        except DataError as error:
            logger.warning("words of language %s are filler (%d): %s", language, len(words), error)
            units = {}
        for word in words:
            found[f"{word}@{language.upper()}"] = units.get(word, [FILLER_TOKEN])
    return found


def _spoken_words(words: Sequence[str], accent: str) -> dict[str, Sequence[str]]:
    pairs = zip(words, spoken(words, accent), strict=True)
    return {word: phonemes for word, phonemes in pairs if phonemes}


if __name__ == "__main__":
    sys.exit(run(main))
