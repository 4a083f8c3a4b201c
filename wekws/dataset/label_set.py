"""The label set of a model: vocabulary, tokenizer and keywords."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wekws.dataset.manifest import Utterance
from wekws.dataset.vocabulary import FILLER, Tokenizer, Vocabulary, read_keywords
from wekws.errors import ConfigError, DataError
from wekws.files import read_json


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Vocabulary, tokenizer and keywords of a model in one object."""

    vocabulary: Vocabulary
    """The label tokens; the position of a token is its id and its output row."""
    tokenizer: Tokenizer
    """Splits transcripts into tokens."""
    keywords: tuple[str, ...] = ()
    """Normalised keywords; empty for a model that is not tested on keywords."""

    @classmethod
    def load(
        cls,
        dict_path: str | os.PathLike[str],
        *,
        lexicon: str | os.PathLike[str] | None = None,
        keywords_file: str | os.PathLike[str] | None = None,
    ) -> "LabelSet":
        """Read ``dict.txt`` and, if given, a pronunciation lexicon and a keywords file.

        Raises: DataError or ConfigError naming the file and line that cannot be used.
        """
        keywords = read_keywords(keywords_file) if keywords_file else []
        return cls(
            vocabulary=Vocabulary.load(dict_path),
            tokenizer=Tokenizer(lexicon),
            keywords=tuple(keywords),
        )

    @property
    def size(self) -> int:
        """Number of tokens, blank and filler included; the model has as many outputs."""
        return self.vocabulary.size

    @property
    def fingerprint(self) -> str:
        """Hash (16 hexadecimal digits) of the tokens; equal for models with the same outputs."""
        return self.vocabulary.fingerprint

    def encode(self, text: str) -> list[int]:
        """Return the label ids of a transcript; consecutive unknown tokens give one filler."""
        return self.vocabulary.encode(text, self.tokenizer)

    def encode_utterance(self, utterance: Utterance) -> list[int]:
        """Return the label ids of an utterance, from its tokens or label ids if it has them.

        Raises: DataError for the id of blank and for an id without a token.
        """
        return self.vocabulary.encode_utterance(utterance, self.tokenizer)

    @cached_property
    def keyword_ids(self) -> tuple[tuple[int, ...], ...]:
        """Label ids of each keyword; tokens that are not in the vocabulary become filler."""
        return tuple(tuple(self.encode(keyword)) for keyword in self.keywords)

    def scorable_ids(self, keyword: str) -> list[int]:
        """Return the label ids of a keyword that the model can score.

        Raises: ConfigError naming the tokens that are not in the vocabulary.
        """
        tokens, ids = self.tokenizer.tokenise(keyword), self.vocabulary.ids
        unknown = [token for token in tokens if ids.get(token, FILLER) == FILLER]
        if unknown or not tokens:
            raise ConfigError(
                f"keyword {keyword}: {' '.join(unknown) or 'it'} has no token in the dictionary; "
                "make the dictionary with this keyword"
            )
        return [ids[token] for token in tokens]


def require_trained_vocabulary(folder: Path, label_set: LabelSet) -> None:
    """Compare the dictionary beside a checkpoint with the one that the run was trained with.

    Raises: DataError if it has other tokens, or the same in another order.
    """
    path = folder / "run.json"
    trained = read_json(path).get("vocabulary") if path.is_file() else None
    if trained not in (None, label_set.fingerprint):
        raise DataError(
            f"{folder / 'dict.txt'}: fingerprint {label_set.fingerprint}, but the model was "
            f"trained with {trained} ({path}); restore the file, or give the right one with --dict"
        )
