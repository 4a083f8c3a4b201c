"""Fixtures of the recipe tests: a copy of the recipe, and a Kaldi folder to run it on."""

from pathlib import Path

import pytest
from recipe_copy import Recipe, new_recipe
from tones import write_split


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, python_dir) -> Recipe:
    """One copy for a module; its path has a space, as a user's may."""
    return new_recipe(tmp_path_factory.mktemp("recipe") / "the recipe", python_dir)


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory) -> Path:
    """Keywords AB and BA A among other words of tones; C is in none of them."""
    corpus = tmp_path_factory.mktemp("corpus") / "my tones"
    texts = ["AB", "BA A", "CAB", "C BC", "BA A C"]
    write_split(corpus, "train", texts * 4, seed=1)
    write_split(corpus, "dev", texts * 2, seed=2)
    write_split(corpus, "test", texts * 2, seed=3)
    write_split(corpus, "test/long", ["C BC CB " * 8], seed=4)
    return corpus
