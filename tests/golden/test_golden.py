"""Compare today's figures with the golden files; figures.py writes them again."""

import pytest
from figures import FIGURES, HERE


def numbers_and_words(line):
    words = line.replace(";", " ").replace("[", " ").replace("]", " ").replace(",", " ").split()
    numbers = [float(word) for word in words if is_number(word)]
    return numbers, [word for word in words if not is_number(word)]


def is_number(word):
    return word.lstrip("-").replace(".", "", 1).replace("e-", "", 1).isdigit()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_that_were_reviewed(name):
    expected = (HERE / name).read_text(encoding="utf-8").splitlines()
    found = FIGURES[name]()
    assert len(found) == len(expected)
    for now, before in zip(found, expected, strict=True):
        (values, words), (old_values, old_words) = map(numbers_and_words, (now, before))
        assert words == old_words
        # Processors round differently, and training carries the difference on.
        assert values == pytest.approx(old_values, rel=2e-3, abs=1e-5), (now, before)
