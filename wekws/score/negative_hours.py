"""Hours of negatives in the lists of a corpus, by split and category."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from wekws.dataset.manifest import SPLITS, read_data_list
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import ConfigError
from wekws.score.sets import OTHER_CATEGORY, transcript


def negative_hours(
    lists: str | os.PathLike[str], keywords: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the hours of utterances without any keyword: split -> category -> hours.

    lists: folder of ``{train,dev,test}/data.list``.
    """
    return {split: _hours(Path(lists) / split / "data.list", keywords) for split in SPLITS}


def _hours(data_list: Path, keywords: Sequence[str]) -> dict[str, float]:
    hours: dict[str, float] = {}
    for utterance in read_data_list(data_list):
        text = transcript(utterance)
        if not any(contains_keyword(text, keyword) for keyword in keywords):
            category = utterance.category or OTHER_CATEGORY
            hours[category] = hours.get(category, 0.0) + utterance.duration / 3600
    return hours


def require_categories(
    dev_list: Path, keywords: Sequence[str], category_hours: Mapping[str, float] | None
) -> None:
    """Check that dev has negatives of every category of ``--category_hours``.

    Raises: ConfigError naming the first that it lacks, and those that there are.
    """
    if not category_hours:
        return
    known = _hours(dev_list, keywords)
    for category in category_hours:
        if category not in known:
            close = difflib.get_close_matches(category, known, 1)
            advice = f"did you mean '{close[0]}'?" if close else "utt2category gives them"
            raise ConfigError(
                f"--category_hours {category}: no negatives of this category in {dev_list}; there "
                f"are {', '.join(sorted(known)) or 'none'}; {advice}"
            )


def hours_table(hours: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of hours by split and category, with their sums."""
    categories = sorted({category for split in hours.values() for category in split})
    header = ["hours of negatives", *categories, "sum"]
    rows = [header, ["---"] * len(header)]
    for split, found in hours.items():
        values = [*(found.get(category, 0.0) for category in categories), sum(found.values())]
        rows.append([split, *(f"{value:.3f}" for value in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
