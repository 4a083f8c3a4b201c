"""Print the hours of negatives of a corpus, and which budgets of false alarms dev can support."""

import argparse
import logging
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.vocabulary import read_keywords
from wekws.log import run
from wekws.score.det import budgets_from_text
from wekws.score.negative_hours import hours_table, negative_hours
from wekws.score.thresholds import (
    SharedThreshold,
    category_hours_from_text,
    require_categories,
    support_text,
)

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and one line per budget; what dev cannot support is a warning."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--lists", type=Path, required=True, help="folder of {train,dev,test}/data.list")
    add("--keywords_file", type=Path, required=True, help="keywords, one per line")
    add("--budgets", default="0.5,1", help="false alarms per hour, with commas [%(default)s]")
    add(
        "--shared_threshold", choices=typing.get_args(SharedThreshold), default="auto",
        help="false: each keyword has a threshold of its own [%(default)s]",
    )  # fmt: skip
    add("--category_hours", default="", help="hours of use per category, whose audio dev must have")
    args = parser.parse_args(argv)
    keywords = read_keywords(args.keywords_file)
    hours = negative_hours(args.lists, keywords)
    used = category_hours_from_text(args.category_hours) or {}
    require_categories(used, hours["dev"], args.lists / "dev" / "data.list")
    print(hours_table(hours))
    for budget in budgets_from_text(args.budgets):
        is_supported, text = support_text(
            sum(hours["dev"].values()), budget, len(keywords), args.shared_threshold
        )
        if is_supported:
            print(text)
        else:
            logger.warning("%s", text)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
