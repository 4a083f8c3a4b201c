"""Text to tokens to label ids: the tokenizer, ``dict.txt``, keywords and top-N selection.

Units are characters for Chinese and Japanese text, letters for alphabetic words, or what a
``lexicon.txt`` (``word unit unit ...``) says.
"""

import functools
import hashlib
import itertools
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wekws.dataset.manifest import KaldiRow, Utterance, kaldi_rows
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path

log = logging.getLogger(__name__)

BLANK, FILLER = 0, 1
BLANK_TOKEN, FILLER_TOKEN = "<blk>", "<filler>"
# Names that public dictionaries give to ids 0 and 1 (Mobvoi's list has `sil` and `&`).
_BLANK_NAMES = {"<blk>", "<blank>", "<eps>", "<sil>", "<silence>", "sil"}
_FILLER_NAMES = {"<filler>", "<unk>", "<gbg>", "&"}
# Transcript markup that stands for no speech; every other markup is a token of its own.
_SILENT_MARKUP = {"<blk>", "<blank>", "<eps>", "<sil>", "<silence>", "<noise>"}

_CJK = "[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
_LETTER = rf"(?:(?!{_CJK})[^\W_]|[\u0300-\u036f])"
_MARKUP = r"<[^<>\s]+>"
_WORD = rf"{_LETTER}+(?:'{_LETTER}+)*"
_CELL = re.compile(f"{_MARKUP}|{_CJK}|{_WORD}")
_RUN = re.compile(f"{_MARKUP}|{_CJK}+|{_WORD}")
_IS_CJK = re.compile(_CJK)


def normalise(text: str) -> str:
    """Letters upper case, markup lower case, compatibility forms made plain, single spaces."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").upper()
    return " ".join(re.sub(_MARKUP, lambda markup: markup[0].lower(), text).split())


class Tokenizer:
    """Cuts transcripts into label tokens."""

    def __init__(self, lexicon: str | os.PathLike[str] | None = None):
        """Read ``lexicon`` if given; of several pronunciations of a word the first counts.

        Raises: DataError for a word without units and for a lexicon without words.
        """
        self._lexicon = {} if lexicon is None else _read_lexicon(lexicon)
        self._longest = max(map(len, self._lexicon), default=0)
        # How often each character became no token (punctuation).
        self.dropped: Counter[str] = Counter()

    def tokenise(self, text: str) -> list[str]:
        """Return the label tokens of a transcript; silence and noise have none.

        A word (between spaces) in the lexicon gives its units. Inside CJK text the longest
        lexicon entry wins, other characters stand for themselves. Other words are spelt:
        letters, digits, inner apostrophes. ``<filler>`` stays one token.
        """
        return [token for word in normalise(text).split() for token in self._word(word)]

    def _word(self, word: str) -> Iterable[str]:
        if word in self._lexicon:
            return self._lexicon[word]
        self.dropped.update(_RUN.sub("", word))
        return itertools.chain.from_iterable(map(self._run, _RUN.findall(word)))

    def _run(self, run: str) -> Iterable[str]:
        if run.startswith("<"):
            run = FILLER_TOKEN if run in _FILLER_NAMES else run
            return () if run in _SILENT_MARKUP else (run,)
        if _IS_CJK.match(run):
            return self._characters(run)
        return self._lexicon.get(run, run)

    def _characters(self, run: str) -> Iterator[str]:
        while run:
            sizes = range(min(len(run), self._longest), 0, -1)
            entry = next((run[:size] for size in sizes if run[:size] in self._lexicon), run[0])
            yield from self._lexicon.get(entry, entry)
            run = run[len(entry) :]


def _read_lexicon(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    lexicon: dict[str, tuple[str, ...]] = {}
    for row in kaldi_rows(path):
        word, units = normalise(row.key), tuple(row.value.split())
        if not units:
            raise DataError(
                f"{path}:{row.line}: '{row.key}' has no units; expected `word unit ...`"
            )
        if not word.startswith("<"):
            lexicon.setdefault(word, units)
    if not lexicon:
        raise DataError(f"{path}: no words; expected lines `word unit unit ...`")
    return lexicon


@dataclass(frozen=True)
class Vocabulary:
    """The label tokens of a model: a token's position is its id and its output row."""

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the two fixed tokens and that no token comes twice."""
        if self.tokens[:2] != (BLANK_TOKEN, FILLER_TOKEN):
            found = " ".join(self.tokens[:2])
            raise DataError(f"tokens 0 and 1 are '{found}'; expected {BLANK_TOKEN} {FILLER_TOKEN}")
        if twice := [token for token, count in Counter(self.tokens).items() if count > 1]:
            raise DataError(f"token '{twice[0]}' has two ids; expected one")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read ``token id`` lines in any order.

        A list that counts from 1 (Mobvoi's ``tokens.txt``) is shifted by one. Other common
        names of blank (``<blank>``, ``sil``, ``<eps>``) and filler (``<unk>``, ``&``) at ids
        0 and 1 are taken as ours.
        Raises: DataError naming the file, and the line where there is one.
        """
        by_id: dict[int, KaldiRow] = {}
        for row in kaldi_rows(path):
            if not row.value.isdecimal():
                raise DataError(f"{path}:{row.line}: id '{row.value}'; expected `token id`")
            first = by_id.setdefault(int(row.value), row)
            if first is not row:
                raise DataError(f"{path}:{row.line}: id {row.value} again; first: {first.line}")
        start = min(by_id, default=0)
        expected = set(range(start, start + len(by_id)))
        if start > 1 or set(by_id) != expected or not by_id:
            missing = sorted((expected | {1}) - set(by_id))[:5]
            raise DataError(f"{path}: ids are not contiguous from 0 (or 1); missing {missing}")
        tokens = [by_id[index].key for index in sorted(by_id)]
        try:
            return cls(tuple(_canonical(index, token) for index, token in enumerate(tokens)))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``token id`` lines, ids from 0."""
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
            stream.writelines(f"{token} {index}\n" for index, token in enumerate(self.tokens))

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Id by token."""
        return {token: index for index, token in enumerate(self.tokens)}

    @property
    def size(self) -> int:
        """Number of tokens, blank and filler included."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """What two models must share for their outputs to mean the same."""
        return hashlib.sha256("\n".join(self.tokens).encode()).hexdigest()[:16]

    def check_output_dim(self, output_dim: int) -> None:
        """Refuse a model with fewer outputs than tokens.

        Raises: ConfigError.
        """
        if self.size > output_dim:
            raise ConfigError(
                f"output_dim {output_dim} is smaller than the vocabulary of {self.size} tokens "
                f"(first without an output: '{self.tokens[output_dim]}'); make them equal"
            )

    def encode(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """Return label ids of a transcript; a run of tokens from outside is one filler."""
        return self._encode(tokenizer.tokenise(text))

    def encode_utterance(self, utterance: Utterance, tokenizer: Tokenizer) -> list[int]:
        """Return label ids of an utterance, from its tokens or label ids if it carries those.

        Raises: DataError for an id that is blank or has no token.
        """
        if utterance.tok is not None:
            return self._encode(utterance.tok)
        if isinstance(utterance.txt, str):
            return self.encode(utterance.txt, tokenizer)
        for label in utterance.txt:
            if not BLANK < label < self.size:
                expected = f"expected 1 to {self.size - 1} of the vocabulary"
                raise DataError(f"utterance {utterance.key}: label id {label}; {expected}")
        return list(utterance.txt)

    def _encode(self, tokens: Iterable[str]) -> list[int]:
        labels: list[int] = []
        for token in tokens:
            label = self.ids.get(token, FILLER)
            if label != FILLER or labels[-1:] != [FILLER]:
                labels.append(label)
        return labels


def _canonical(index: int, token: str) -> str:
    if index == BLANK and token.lower() in _BLANK_NAMES:
        return BLANK_TOKEN
    if index == FILLER and token.lower() in _FILLER_NAMES:
        return FILLER_TOKEN
    return token


def parse_keywords(text: str) -> list[str]:
    """Read ``A,B C`` (or one keyword a line) into normalised keywords.

    Raises: ConfigError if there is none, one comes twice, has no letter or holds a slash.
    """
    keywords = [normalise(part) for part in re.split("[,，\n]", text) if part.strip()]
    if not keywords:
        raise ConfigError('keywords: found none; expected for example "JARVIS,SMART MIRROR"')
    for keyword in keywords:
        if "<" in keyword or not _cells(keyword):
            raise ConfigError(f"keywords: '{keyword}' has no sound; expected words or characters")
        if "/" in keyword:
            raise ConfigError(f"keywords: '{keyword}' cannot name a file; leave out the slash")
        if keywords.count(keyword) > 1:
            raise ConfigError(f"keywords: '{keyword}' comes twice; name it once")
    return keywords


def read_keywords(path: str | os.PathLike[str]) -> list[str]:
    """Read a keywords file, one a line."""
    return parse_keywords("\n".join(f"{row.key} {row.value}" for row in kaldi_rows(path)))


def write_keywords(path: str | os.PathLike[str], keywords: Iterable[str]) -> None:
    """Write a keywords file, one a line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.writelines(f"{keyword}\n" for keyword in keywords)


def keyword_id(keyword: str) -> str:
    """Return the name of a keyword in score files and file names: no spaces."""
    return keyword.replace(" ", "_")


def contains_keyword(text: str, keyword: str) -> bool:
    """Whether a keyword is said: whole words in alphabetic text, anywhere in CJK text."""
    said, wanted = _cells(text), _cells(keyword)
    return any(
        said[start : start + len(wanted)] == wanted for start in range(len(said) - len(wanted) + 1)
    )


@functools.lru_cache(maxsize=1024)
def _cells(text: str) -> tuple[str, ...]:
    """What a keyword cannot begin or end inside: a CJK character, a word, markup."""
    return tuple(_CELL.findall(normalise(text)))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A vocabulary and what it leaves of the training text."""

    vocabulary: Vocabulary
    # Share of the training tokens (fillers aside) that keep a label of their own, 0 to 1.
    coverage: float
    # Occurrences in the training text of every token that becomes filler.
    dropped: Counter[str]


def select_tokens(
    texts: Iterable[str], keywords: Sequence[str], num_tokens: int | None, tokenizer: Tokenizer
) -> Selection:
    """Choose blank, filler, the keywords' tokens, then the most frequent; None takes all.

    Tokens of equal frequency come in the order of their code points. Keywords that need more
    than ``num_tokens`` get them, with a warning.
    Raises: ConfigError if two keywords have the same tokens.
    """
    counts = Counter(token for text in texts for token in tokenizer.tokenise(text))
    del counts[FILLER_TOKEN]
    needed = _keyword_tokens(keywords, tokenizer)
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    tokens = list(dict.fromkeys([BLANK_TOKEN, FILLER_TOKEN, *needed, *ranked]))
    minimum = 2 + len(needed)
    if num_tokens is not None and num_tokens < minimum:
        log.warning("%d tokens instead of %d: the keywords need them", minimum, num_tokens)
    if num_tokens is not None:
        tokens = tokens[: max(num_tokens, minimum)]
    kept = set(tokens)
    dropped = Counter({token: n for token, n in counts.items() if token not in kept})
    coverage = 1 - dropped.total() / max(counts.total(), 1)
    return Selection(vocabulary=Vocabulary(tuple(tokens)), coverage=coverage, dropped=dropped)


def _keyword_tokens(keywords: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Return the tokens of all keywords, each once, in order of appearance."""
    owner: dict[tuple[str, ...], str] = {}
    for keyword in keywords:
        tokens = tuple(tokenizer.tokenise(keyword))
        if (other := owner.setdefault(tokens, keyword)) != keyword:
            shared = f"have the same tokens ({' '.join(tokens)})"
            raise ConfigError(f"keywords: '{other}' and '{keyword}' {shared}; keep one of them")
    return list(dict.fromkeys(itertools.chain.from_iterable(owner)))
