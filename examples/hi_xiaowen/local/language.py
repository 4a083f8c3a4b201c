"""Interface that the languages of the synthesised corpus share."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

PhonemesOf = Callable[[list[str]], list[str]]
"""Maps texts to espeak-ng's phoneme strings, one string per text."""


class Language(Protocol):
    """Texts of one language: what a synthesised corpus is planned from."""

    voices: tuple[str, ...]
    """espeak-ng voices of this language."""
    units_per_second: float
    """Characters or words per second, at the speaking rates of synthesise.py."""
    word_share: float
    """Share of isolated words among the sentences, 0 to 1."""
    keywords: list[str]
    """Keywords, in the order of their ids."""

    def is_clean(self, text: str) -> bool:
        """Whether the text contains no keyword."""

    def sentence(self, rng: np.random.Generator, duration_s: float) -> str:
        """Make a sentence of about this duration, without a keyword."""

    def word(self, rng: np.random.Generator) -> str:
        """Draw isolated words; called only where `word_share` is above 0."""

    def transcript(self, text: str) -> str:
        """Words of a spoken text, without punctuation."""

    def confusables(
        self, keyword: str, count: int, seed: int, phonemes_of: PhonemesOf
    ) -> list[str]:
        """Up to `count` phrases that sound like the keyword, in a fixed order per seed."""
