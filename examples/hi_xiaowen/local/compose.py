"""Composition of sentences from templates and word lists."""

import re
from pathlib import Path

from wekws.files import read_yaml

WORDS_DIR = Path(__file__).parent / "words"
SLOT = re.compile(r"\{(\w+)\}")


def load_words(language):
    """Templates, slots and lists of one language."""
    return read_yaml(WORDS_DIR / f"{language}.yaml")


def choose(rng, options):
    """One of the options, as it is (numpy's choice would make an array of them)."""
    return options[int(rng.integers(len(options)))]


class Composer:
    """Fills templates and strings clauses together until a sentence is long enough."""

    def __init__(self, words, joiner_pause):
        """joiner_pause: what stands between two clauses beside the joiner."""
        self._templates = words["templates"]
        self._slots = words["slots"]
        self._joiners = words["joiners"]
        self._pause = joiner_pause

    def clause(self, rng):
        """One filled template."""
        template = choose(rng, self._templates)
        return SLOT.sub(lambda match: choose(rng, self._slots[match[1]]), template)

    def sentence(self, rng, num_units, count_units):
        """Clauses until `count_units(text)` is within a third of a clause of `num_units`."""
        text = self.clause(rng)
        clause_length = count_units(text)
        while count_units(text) < num_units - clause_length / 3:
            text += choose(rng, self._joiners) + self._pause + self.clause(rng)
        return text
