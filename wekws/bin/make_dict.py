"""Choose the label tokens from training text and keywords; write ``dict.txt``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.manifest import kaldi_rows
from wekws.dataset.vocabulary import (
    Selection,
    Tokenizer,
    parse_keywords,
    select_tokens,
    write_keywords,
)
from wekws.errors import ConfigError
from wekws.log import run

log = logging.getLogger(__name__)

_MAX_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dictionary (and the keywords) and print what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="training `id transcript` lines")
    parser.add_argument("--keywords", required=True, help='such as "JARVIS,SMART MIRROR"')
    parser.add_argument("--lexicon", type=Path, help="`word unit unit ...` lines")
    parser.add_argument("--num_tokens", default="all", help="dictionary size, or `all`")
    parser.add_argument("--dict", type=Path, required=True, help="dictionary to write")
    parser.add_argument("--keywords_file", type=Path, help="keywords to write, one a line")
    args = parser.parse_args(argv)
    keywords = parse_keywords(args.keywords)
    tokenizer = Tokenizer(args.lexicon)
    texts = (row.value for row in kaldi_rows(args.text))
    selection = select_tokens(texts, keywords, _num_tokens(args.num_tokens), tokenizer)
    selection.vocabulary.save(args.dict)
    if args.keywords_file:
        write_keywords(args.keywords_file, keywords)
    if tokenizer.dropped:
        log.warning("not tokens, left out: %s", _counts(tokenizer.dropped.most_common()))
    _print_summary(selection, keywords, tokenizer, args.dict)
    return 0


def _num_tokens(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 3:
        raise ConfigError(f"--num_tokens {text}: expected `all` or a number from 3")
    return int(text)


def _print_summary(
    selection: Selection, keywords: Sequence[str], tokenizer: Tokenizer, path: Path
) -> None:
    for keyword in keywords:
        print(f"{keyword}: {' '.join(tokenizer.tokenise(keyword))}")
    size = selection.vocabulary.size
    print(f"{path}: {size} tokens, {selection.coverage:.2%} of the training tokens")
    if selection.dropped:
        print(f"now filler: {_counts(selection.dropped.most_common())}")


def _counts(pairs: Sequence[tuple[str, int]]) -> str:
    shown = " ".join(f"{token} ({count})" for token, count in pairs[:_MAX_SHOWN])
    return shown + (f" and {len(pairs) - _MAX_SHOWN} more" if len(pairs) > _MAX_SHOWN else "")


if __name__ == "__main__":
    sys.exit(run(main))
