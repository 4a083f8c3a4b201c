"""Text to tokens to label ids: the tokenizer, the vocabulary (``dict.txt``) and keywords.

Tokens are characters for Chinese and Japanese text and letters for alphabetic words, or the units
of a pronunciation lexicon (``WORD unit unit ...``).
"""

import functools
import hashlib
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.manifest import KaldiRow, Utterance, kaldi_rows
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path

MOBVOI_KEYWORDS = ("嗨小问", "你好问问")
"""The keywords of the Mobvoi hotword corpus (SLR87)."""

BLANK, FILLER = 0, 1
BLANK_TOKEN, FILLER_TOKEN = "<blk>", "<filler>"
# Names of ids 0 and 1 in public dictionaries (Mobvoi's list has `sil` and `&`).
_BLANK_NAMES = {"<blk>", "<blank>", "<eps>", "<sil>", "<silence>", "sil"}
_FILLER_NAMES = {"<filler>", "<unk>", "<gbg>", "&"}
# File systems allow 255 bytes; result files add a prefix and a suffix to the keyword.
_MAX_KEYWORD_BYTES = 200
# Transcript markup without a label; every other markup is a token of its own.
_SILENT_MARKUP = {"<blk>", "<blank>", "<eps>", "<sil>", "<silence>", "<noise>"}

_CJK = "[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
# Vowel signs and tone marks of Devanagari, Thai and others, which \w does not include.
_MARKS = "".join(
    chr(code)
    for code in range(0x300, 0xFE00)
    if unicodedata.category(chr(code)) in ("Mn", "Mc") and not re.match(_CJK, chr(code))
)
_LETTER = rf"(?:(?!{_CJK})[^\W_]|[{_MARKS}])"
_MARKUP = r"<[^<>\s]+>"
_WORD = rf"{_LETTER}+(?:'{_LETTER}+)*"
_UNIT = re.compile(f"{_MARKUP}|{_CJK}|{_WORD}")
_RUN = re.compile(f"{_MARKUP}|{_CJK}+|{_WORD}")
_IS_CJK = re.compile(_CJK)
# Language of a word that is not in that of the keywords, at its end: WATER@NL.
_LANGUAGE = re.compile(r"@[A-Z]{2,3}(?!\S)")
# Text in which every character but the space is a token as it stands.
_PLAIN = re.compile("[A-Za-z\u4e00-\u9fff ]*")
# Text in which every character is a unit and its own normal form.
_CHARACTERS = re.compile("[\u4e00-\u9fff]*")


def normalise(text: str) -> str:
    """Return text in NFKC form, letters in upper case, markup in lower case, single spaces."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").upper()
    return " ".join(re.sub(_MARKUP, lambda markup: markup[0].lower(), text).split())


def has_words(text: str | Iterable[str | int]) -> bool:
    """Return whether a transcript has more than markup such as ``<filler>`` or ``<noise>``.

    text: a transcript, its tokens, or the label ids of WeKWS's older lists.
    """
    if isinstance(text, str):
        if _PLAIN.fullmatch(text):  # most transcripts, in a fraction of the time
            return bool(text.strip())
        return any(not unit.startswith("<") for unit in _UNIT.findall(normalise(text)))
    return any(unit > FILLER if isinstance(unit, int) else has_words(unit) for unit in text)


def alphabetic_words(text: str) -> list[str]:
    """Return the words of a transcript that a lexicon may pronounce, without punctuation.

    Markup and CJK characters are none.
    """
    runs = _RUN.findall(normalise(text))
    return [run for run in runs if not run.startswith("<") and not _IS_CJK.match(run)]


def words_of_language(text: str, language: str) -> str:
    """Return a transcript with the language of each word: ``WATER@NL IS@NL`` of ``Water is``.

    A lexicon has such words beside those of the keywords' language that are spelt alike. Markup and
    punctuation are left out; CJK characters without a space between them are one word.
    """
    runs = [run for run in _RUN.findall(normalise(text)) if not run.startswith("<")]
    return " ".join(f"{run}@{language.upper()}" for run in runs)


def split_language(word: str) -> tuple[str, str]:
    """Return a word and its language in lower case: ``WATER@NL`` -> WATER, nl; empty if none."""
    found = _LANGUAGE.search(word)
    return (word[: found.start()], found[0][1:].lower()) if found else (word, "")


class Tokenizer:
    """Splits transcripts into label tokens."""

    def __init__(self, lexicon: str | os.PathLike[str] | None = None) -> None:
        """Read a pronunciation lexicon, if given; the first pronunciation of a word counts.

        Raises: DataError for a word without units and for a lexicon without words.
        """
        self._lexicon = {} if lexicon is None else _read_lexicon(lexicon)
        self._longest = max(map(len, self._lexicon), default=0)
        self.ignored: Counter[str] = Counter()
        """Occurrences of characters that give no token (punctuation), in all text so far."""

    def tokenise(self, text: str) -> list[str]:
        """Return the label tokens of a transcript; silence and noise have none.

        A word (between spaces) of the lexicon becomes its units. In CJK text the longest lexicon
        entry is taken at each place, and every other character is a token. All other words are
        spelt: letters, digits, inner apostrophes. ``<filler>`` is one token.
        """
        if not self._lexicon and _PLAIN.fullmatch(text):
            return list(text.upper().replace(" ", ""))
        return [token for word in normalise(text).split() for token in self._word(word)]

    def spelt(self, text: str) -> list[str]:
        """Return the words, of CJK text the characters, that have no entry in the lexicon."""
        words = [word for word in normalise(text).split() if word not in self._lexicon]
        runs = [run for word in words for run in _RUN.findall(word) if not run.startswith("<")]
        parts = [p for run in runs for p in (self._entries(run) if _IS_CJK.match(run) else [run])]
        return [part for part in parts if part not in self._lexicon]

    def _word(self, word: str) -> Iterable[str]:
        if word in self._lexicon:
            return self._lexicon[word]
        self.ignored.update(_RUN.sub("", word))
        return itertools.chain.from_iterable(map(self._run, _RUN.findall(word)))

    def _run(self, run: str) -> Iterable[str]:
        if run.startswith("<"):
            run = FILLER_TOKEN if run in _FILLER_NAMES else run
            return () if run in _SILENT_MARKUP else (run,)
        if _IS_CJK.match(run):
            return itertools.chain.from_iterable(
                self._lexicon.get(e, e) for e in self._entries(run)
            )
        return self._lexicon.get(run, run)

    def _entries(self, run: str) -> Iterator[str]:
        """Yield the parts of CJK text: at each place the longest entry, else one character."""
        while run:
            sizes = range(min(len(run), self._longest), 0, -1)
            entry = next((run[:size] for size in sizes if run[:size] in self._lexicon), run[0])
            yield entry
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
    """The label tokens of a model."""

    tokens: tuple[str, ...]
    """All tokens; the position of a token is its id and its output row of the model."""

    def __post_init__(self) -> None:
        """Check the first two tokens and that no token occurs twice."""
        if self.tokens[:2] != (BLANK_TOKEN, FILLER_TOKEN):
            found = " ".join(self.tokens[:2])
            raise DataError(f"tokens 0 and 1 are '{found}'; expected {BLANK_TOKEN} {FILLER_TOKEN}")
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated:
            raise DataError(f"token '{repeated[0]}' has two ids; expected one")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read ``token id`` lines in any order.

        Ids that start at 1 (Mobvoi's ``tokens.txt``) are shifted by one. Other common names of
        blank (``<blank>``, ``sil``, ``<eps>``) and filler (``<unk>``, ``&``) at ids 0 and 1 are
        replaced by ours.
        Raises: DataError naming the file, and the line if the problem is in one.
        """
        by_id: dict[int, KaldiRow] = {}
        for row in kaldi_rows(path):
            if not row.value.isdecimal():
                raise DataError(f"{path}:{row.line}: id '{row.value}'; expected `token id`")
            first = by_id.setdefault(int(row.value), row)
            if first is not row:
                raise DataError(
                    f"{path}:{row.line}: id {row.value} is already in line {first.line}"
                )
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
        """Write ``token id`` lines; ids start at 0."""
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
        """Hash (16 hexadecimal digits) of the tokens; equal for models with the same outputs."""
        return hashlib.sha256("\n".join(self.tokens).encode()).hexdigest()[:16]

    def check_output_dim(self, output_dim: int) -> None:
        """Check that a model has an output for every token.

        Raises: ConfigError if it has fewer outputs than tokens.
        """
        if self.size > output_dim:
            raise ConfigError(
                f"output_dim {output_dim} is smaller than the vocabulary of {self.size} tokens "
                f"(first without an output: '{self.tokens[output_dim]}'); make them equal"
            )

    def encode(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """Return label ids of a transcript; consecutive unknown tokens give one filler."""
        return self._encode(tokenizer.tokenise(text))

    def encode_utterance(self, utterance: Utterance, tokenizer: Tokenizer) -> list[int]:
        """Return label ids of an utterance, from its tokens or label ids if it has them.

        Raises: DataError for the id of blank and for an id without a token.
        """
        if utterance.tok is not None:
            return self._encode(utterance.tok)
        if isinstance(utterance.txt, str):
            return self.encode(utterance.txt, tokenizer)
        for label in utterance.txt:
            if not BLANK < label < self.size:
                expected = f"expected 1 to {self.size - 1}, the ids of the vocabulary"
                raise DataError(f"utterance {utterance.key}: label id {label}; {expected}")
        return list(utterance.txt)

    def _encode(self, tokens: Iterable[str]) -> list[int]:
        labels = list(map(self.ids.get, tokens, itertools.repeat(FILLER)))
        if labels.count(FILLER) < 2:
            return labels
        pairs = zip(labels, [BLANK, *labels], strict=False)
        return [label for label, last in pairs if label != FILLER or last != FILLER]


def _canonical(index: int, token: str) -> str:
    if index == BLANK and token.lower() in _BLANK_NAMES:
        return BLANK_TOKEN
    if index == FILLER and token.lower() in _FILLER_NAMES:
        return FILLER_TOKEN
    return token


def parse_keywords(text: str) -> list[str]:
    """Split ``A,B C`` (or one keyword per line) into normalised keywords.

    Raises: ConfigError as ``normalise_keywords`` does.
    """
    return normalise_keywords(part for part in re.split("[,，\n]", text) if part.strip())


def normalise_keywords(names: Iterable[str]) -> list[str]:
    """Return keywords in normalised form.

    Raises: ConfigError if there is none, or if one occurs twice, has no letter, has a slash or is
    too long for a file name.
    """
    keywords = [normalise(name) for name in names]
    if not keywords:
        raise ConfigError('keywords: found none; expected for example "JARVIS,SMART MIRROR"')
    for keyword in keywords:
        if "<" in keyword or not _units(keyword):
            raise ConfigError(f"keywords: '{keyword}' has no letters; expected words or characters")
        if "/" in keyword:
            raise ConfigError(f"keywords: '{keyword}' cannot name a file; leave out the slash")
        if len(keyword.encode()) > _MAX_KEYWORD_BYTES:
            raise ConfigError(
                f"keywords: '{keyword}' has {len(keyword.encode())} bytes in UTF-8; at most"
                f" {_MAX_KEYWORD_BYTES} fit into a file name"
            )
        if keywords.count(keyword) > 1:
            raise ConfigError(f"keywords: '{keyword}' occurs twice; give it once")
    return keywords


def read_keywords(path: str | os.PathLike[str]) -> list[str]:
    """Read a keywords file with one keyword per line."""
    return parse_keywords("\n".join(f"{row.key} {row.value}" for row in kaldi_rows(path)))


def write_keywords(path: str | os.PathLike[str], keywords: Iterable[str]) -> None:
    """Write a keywords file with one keyword per line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.writelines(f"{keyword}\n" for keyword in keywords)


def lexicon_beside(model_path: str | os.PathLike[str]) -> Path | None:
    """Return the lexicon in the folder of a model file; None if it was trained without one."""
    path = Path(model_path).with_name("lexicon.txt")
    return path if path.is_file() else None


def keyword_id(keyword: str) -> str:
    """Return the keyword without spaces, as it is used in score files and file names."""
    return keyword.replace(" ", "_")


def contains_keyword(text: str, keyword: str) -> bool:
    """Return whether a transcript contains a keyword.

    In alphabetic text only whole words match; in CJK text a match can begin at any character.
    """
    wanted = _units(keyword)
    if _CHARACTERS.fullmatch(text):
        return "".join(wanted) in text
    if wanted[0] not in (upper := text.upper().replace("\u2019", "'")) and (
        unicodedata.is_normalized("NFKC", upper)
    ):
        return False
    units = _units(text)
    last_start = len(units) - len(wanted)
    return any(units[i : i + len(wanted)] == wanted for i in range(last_start + 1))


@functools.lru_cache(maxsize=1024)
def _units(text: str) -> tuple[str, ...]:
    """Split text into CJK characters, words and markup; a keyword matches whole units only."""
    return tuple(_UNIT.findall(_LANGUAGE.sub("", normalise(text))))
