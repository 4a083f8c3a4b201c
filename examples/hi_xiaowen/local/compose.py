"""Sentences from templates and word lists."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np

from wekws.yaml_files import read_yaml

WORDS_DIR = Path(__file__).parent / "words"
SLOT = re.compile(r"\{(\w+)\}")

Choice = TypeVar("Choice")


class WordLists(TypedDict):
    """Templates and word lists of one language, as words/LANGUAGE.yaml holds them."""

    templates: list[str]
    """Sentences with slots, such as `turn on the {device}`."""
    slots: dict[str, list[str]]
    """Slot name -> words that fill it."""
    joiners: list[str]
    """Words or punctuation between two clauses."""
    words: list[str]
    """Single words; English only."""
    keyword_confusables: dict[str, list[str]]
    """Keyword -> phrases that sound like it; Mandarin only."""


def load_words(language: str) -> WordLists:
    """Read the word lists of one language (zh or en)."""
    lists: WordLists = read_yaml(WORDS_DIR / f"{language}.yaml")
    return lists


def choose(rng: np.random.Generator, options: Sequence[Choice]) -> Choice:
    """Draw one of the options and keep its type (numpy's choice would return an array)."""
    return options[int(rng.integers(len(options)))]


class Composer:
    """Fills templates and joins clauses until a sentence is long enough."""

    def __init__(self, words: WordLists, joiner_pause: str) -> None:
        """Keep the word lists.

        joiner_pause: text between two clauses, after the joiner.
        """
        self._templates = words["templates"]
        self._slots = words["slots"]
        self._joiners = words["joiners"]
        self._pause = joiner_pause

    def clause(self, rng: np.random.Generator) -> str:
        """Draw one template and fill its slots."""
        template = choose(rng, self._templates)
        return SLOT.sub(lambda match: choose(rng, self._slots[match[1]]), template)

    def sentence(
        self, rng: np.random.Generator, num_units: float, count_units: Callable[[str], int]
    ) -> str:
        """Join clauses until `count_units(text)` is within a third of a clause of `num_units`."""
        text = self.clause(rng)
        clause_length = count_units(text)
        while count_units(text) < num_units - clause_length / 3:
            text += choose(rng, self._joiners) + self._pause + self.clause(rng)
        return text
