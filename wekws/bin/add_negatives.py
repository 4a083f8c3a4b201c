"""Add folders of audio without a keyword to the Kaldi lists of a corpus.

A folder is a Kaldi tree ({train,dev,test}/wav.scp; text, utt2spk, utt2lang and utt2category are
optional) or a plain folder of audio files, split by file. Transcripts become filler unless they are
sure to be in the language of the keywords; recordings that contain a keyword are left out.
"""

import argparse
import logging
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.negatives import LabelRule, TextUse, add_negatives, language_of
from wekws.dataset.vocabulary import parse_keywords
from wekws.log import run

logger = logging.getLogger(__name__)

_MAX_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Extend the lists and print what was added."""
    args = _parser().parse_args(argv)
    keywords = parse_keywords(args.keywords)
    rule = LabelRule(
        keywords=keywords,
        language=args.language or language_of(keywords),
        text_use=args.negatives_text,
        has_phonemes=args.phonemes,
    )
    added = add_negatives(args.lists, args.negatives, rule, train_as_dev=args.train_as_dev)
    if names := added.with_keyword:
        more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
        shown = ", ".join(names[:_MAX_SHOWN])
        logger.warning("%d negatives contain a keyword, left out: %s%s", len(names), shown, more)
    if added.without_language:
        logger.warning(
            "%d transcripts of negatives count as filler: no utt2lang gives their language as a "
            "code such as en; --negatives_text use takes them",
            added.without_language,
        )
    print(added.table())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--lists", type=Path, required=True, help="folder of the lists: {train,dev,test}/wav.scp")
    add(
        "--negatives", type=Path, action="append", required=True,
        help="folder of audio without a keyword; may be repeated",
    )  # fmt: skip
    add("--keywords", required=True, help='keywords, such as "JARVIS,SMART MIRROR"')
    add("--language", help="language of the keywords, as in utt2lang [zh or en, by their letters]")
    add(
        "--negatives_text", choices=typing.get_args(TextUse), default="auto",
        help="transcripts to train on: those whose utt2lang is the keywords' language (auto), all "
        "(use) or none (filler) [%(default)s]",
    )  # fmt: skip
    add(
        "--phonemes", action="store_true",
        help="the tokens are phonemes: transcripts in every language that utt2lang names are kept, "
        "each word with its language",
    )  # fmt: skip
    add(
        "--train_as_dev", action="store_true",
        help="recordings for training join dev, unless --phonemes keeps their words: for keywords "
        "that are synthesised alone",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
