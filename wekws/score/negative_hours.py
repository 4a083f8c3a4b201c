"""Hours of negatives in the lists of a corpus, by split and category."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from wekws.dataset.manifest import SPLITS, read_data_list
from wekws.dataset.vocabulary import contains_keyword
from wekws.score.sets import OTHER_CATEGORY, transcript


def negative_hours(
    lists: str | os.PathLike[str], keywords: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the hours of utterances without any keyword: split -> category -> hours.

    lists: folder of ``{train,dev,test}/data.list``.
    """
    return {
        split: hours_by_category(Path(lists) / split / "data.list", keywords) for split in SPLITS
    }


def hours_by_category(data_list: Path, keywords: Sequence[str]) -> dict[str, float]:
    """Return the hours of utterances without any keyword in one list, by category."""
    hours: dict[str, float] = {}
    for utterance in read_data_list(data_list):
        text = transcript(utterance)
        if not any(contains_keyword(text, keyword) for keyword in keywords):
            category = utterance.category or OTHER_CATEGORY
            hours[category] = hours.get(category, 0.0) + utterance.duration / 3600
    return hours


def hours_table(hours: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of hours by split and category, with their sums."""
    categories = sorted({category for split in hours.values() for category in split})
    header = ["hours of negatives", *categories, "sum"]
    rows = [header, ["---"] * len(header)]
    for split, found in hours.items():
        values = [*(found.get(category, 0.0) for category in categories), sum(found.values())]
        rows.append([split, *(f"{value:.3f}" for value in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
