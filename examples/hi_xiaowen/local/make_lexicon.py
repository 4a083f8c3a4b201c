"""Write a lexicon: the phonemes of every English word of a text and of the keywords.

They are espeak-ng's, one symbol each: `COMPUTER k ə m p j u ɾ ɚ`. Words in other scripts are left
out; their tokens stay characters.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from phonetics import spoken

from wekws.dataset.manifest import kaldi_rows
from wekws.dataset.negatives import scripts_of
from wekws.dataset.vocabulary import alphabetic_words, parse_keywords
from wekws.errors import ConfigError
from wekws.files import atomic_path
from wekws.log import run

ACCENT = "en-us"


def main(argv: list[str] | None = None) -> int:
    """Write the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="training text, `id transcript`")
    parser.add_argument("--keywords", required=True, help='keywords, such as "JARVIS,SMART MIRROR"')
    parser.add_argument("--lexicon", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    keywords = parse_keywords(args.keywords)
    lexicon = pronunciations([*keywords, *(row.value for row in kaldi_rows(args.text))])
    for keyword in keywords:
        words = alphabetic_words(keyword)
        if not words or not all(word in lexicon for word in words):
            raise ConfigError(
                f"keyword {keyword}: espeak-ng has no English phonemes for it; expected words in "
                "Latin letters"
            )
    args.lexicon.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.lexicon) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.writelines(f"{word} {' '.join(lexicon[word])}\n" for word in sorted(lexicon))
    print(f"{args.lexicon}: {len(lexicon)} words")
    return 0


def pronunciations(texts: Iterable[str]) -> dict[str, str]:
    """Phonemes of every English word, one symbol each: {"ALEXA": "ɐlɛksə"}."""
    found = {word for text in texts for word in alphabetic_words(text)}
    words = sorted(word for word in found if scripts_of(word) <= {"LATIN"})
    pairs = zip(words, spoken(words, ACCENT), strict=True)
    return {word: phonemes for word, phonemes in pairs if phonemes}


if __name__ == "__main__":
    sys.exit(run(main))
