"""Selection of label tokens: the tokens of all keywords first, then the most frequent ones."""

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wekws.dataset.manifest import kaldi_rows
from wekws.dataset.vocabulary import (
    BLANK_TOKEN,
    FILLER_TOKEN,
    Tokenizer,
    Vocabulary,
    normalise_keywords,
    write_keywords,
)
from wekws.errors import ConfigError, DataError
from wekws.files import require_not_input

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A vocabulary and its coverage of the training text."""

    vocabulary: Vocabulary
    """Blank, filler and the selected tokens."""
    keyword_tokens: Mapping[str, tuple[str, ...]]
    """Tokens of each keyword."""
    coverage: float
    """Share of the training tokens (fillers aside) that have a label of their own, 0 to 1."""
    unselected: Counter[str]
    """Occurrences in the training text of each token that becomes filler."""
    ignored: Counter[str]
    """Occurrences in text and keywords of each character that gives no token (punctuation)."""


def make_dict(
    text: str | os.PathLike[str],
    keywords: Iterable[str],
    *,
    dict_path: str | os.PathLike[str],
    num_tokens: int | None = None,
    lexicon: str | os.PathLike[str] | None = None,
    keywords_path: str | os.PathLike[str] | None = None,
) -> Selection:
    """Select the label tokens from training text and keywords and write ``dict.txt``.

    text: file with ``id transcript`` lines.
    num_tokens: size of the dictionary, blank and filler included; None: all tokens of the text.
    lexicon: pronunciations, ``WORD unit unit ...``; None: characters and letters are the tokens.
    keywords_path: file to write the normalised keywords to, one per line.
    Raises: DataError for a file that cannot be read or has no transcript; ConfigError for keywords
    that cannot be used.
    """
    require_not_input(dict_path, text, lexicon, keywords_path)
    if keywords_path is not None:
        require_not_input(keywords_path, text, lexicon)
    normalised = normalise_keywords(keywords)
    texts = [row.value for row in kaldi_rows(text)]
    if not any(texts):
        raise DataError(f"{text}: has no transcript; expected lines `id transcript`")
    selection = select_tokens(
        texts, normalised, tokenizer=Tokenizer(lexicon), num_tokens=num_tokens
    )
    selection.vocabulary.save(dict_path)
    if keywords_path is not None:
        write_keywords(keywords_path, normalised)
    return selection


def select_tokens(
    texts: Iterable[str],
    keywords: Sequence[str],
    *,
    tokenizer: Tokenizer,
    num_tokens: int | None = None,
) -> Selection:
    """Select blank, filler, the tokens of all keywords, then the most frequent tokens.

    num_tokens: size of the vocabulary; None: all tokens. Keywords that need more tokens get them,
    with a warning.
    Tokens of equal frequency are ordered by code point.
    Raises: ConfigError if two keywords have the same tokens.
    """
    counts = Counter(token for text in texts for token in tokenizer.tokenise(text))
    del counts[FILLER_TOKEN]
    keyword_tokens = _keyword_tokens(keywords, tokenizer)
    needed = dict.fromkeys(itertools.chain.from_iterable(keyword_tokens.values()))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    tokens = list(dict.fromkeys([BLANK_TOKEN, FILLER_TOKEN, *needed, *ranked]))
    minimum = 2 + len(needed)
    if num_tokens is not None and num_tokens < minimum:
        logger.warning("%d tokens instead of %d: the keywords need them", minimum, num_tokens)
    if num_tokens is not None:
        tokens = tokens[: max(num_tokens, minimum)]
    kept = set(tokens)
    unselected = Counter({token: n for token, n in counts.items() if token not in kept})
    return Selection(
        vocabulary=Vocabulary(tuple(tokens)),
        keyword_tokens=keyword_tokens,
        coverage=1 - unselected.total() / max(counts.total(), 1),
        unselected=unselected,
        ignored=Counter(tokenizer.ignored),
    )


def _keyword_tokens(keywords: Sequence[str], tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    """Return the tokens of each keyword, which must be different."""
    keyword_of: dict[tuple[str, ...], str] = {}
    for keyword in keywords:
        tokens = tuple(tokenizer.tokenise(keyword))
        if (other := keyword_of.setdefault(tokens, keyword)) != keyword:
            shared = f"have the same tokens ({' '.join(tokens)})"
            raise ConfigError(f"keywords: '{other}' and '{keyword}' {shared}; keep one of them")
    return {keyword: tokens for tokens, keyword in keyword_of.items()}
