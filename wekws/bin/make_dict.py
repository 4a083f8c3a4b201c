"""Select the label tokens from training text and keywords; write ``dict.txt``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.token_selection import Selection, make_dict
from wekws.dataset.vocabulary import parse_keywords
from wekws.errors import ConfigError
from wekws.log import run

logger = logging.getLogger(__name__)

_MAX_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dictionary (and the keywords) and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="training text, `id transcript`")
    parser.add_argument("--keywords", required=True, help='keywords, such as "JARVIS,SMART MIRROR"')
    parser.add_argument("--lexicon", type=Path, help="pronunciations, `WORD unit unit ...`")
    parser.add_argument(
        "--num_tokens", default="all", help="size of the dictionary, or `all` tokens of the text"
    )
    parser.add_argument("--dict", type=Path, required=True, help="dictionary to write")
    parser.add_argument("--keywords_file", type=Path, help="file to write the keywords to")
    args = parser.parse_args(argv)
    selection = make_dict(
        args.text,
        parse_keywords(args.keywords),
        dict_path=args.dict,
        num_tokens=_num_tokens(args.num_tokens),
        lexicon=args.lexicon,
        keywords_path=args.keywords_file,
    )
    if selection.ignored:
        logger.warning("characters without a token: %s", _counts(selection.ignored.most_common()))
    _print_summary(selection, args.dict)
    return 0


def _num_tokens(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 3:
        raise ConfigError(f"--num_tokens {text}: expected `all` or a number from 3")
    return int(text)


def _print_summary(selection: Selection, path: Path) -> None:
    for keyword, tokens in selection.keyword_tokens.items():
        print(f"{keyword}: {' '.join(tokens)}")
    size = selection.vocabulary.size
    print(f"{path}: {size} tokens, {selection.coverage:.2%} of the training tokens")
    if selection.unselected:
        print(f"tokens that become filler: {_counts(selection.unselected.most_common())}")


def _counts(pairs: Sequence[tuple[str, int]]) -> str:
    shown = " ".join(f"{token} ({count})" for token, count in pairs[:_MAX_SHOWN])
    return shown + (f" and {len(pairs) - _MAX_SHOWN} more" if len(pairs) > _MAX_SHOWN else "")


if __name__ == "__main__":
    sys.exit(run(main))
