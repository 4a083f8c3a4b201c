"""Flags of every command that chooses thresholds."""

import argparse
import typing

from wekws.score.thresholds import ThresholdRule


def add_threshold_flags(parser: argparse.ArgumentParser) -> None:
    """Add --threshold_rule and --category_hours."""
    parser.add_argument(
        "--threshold_rule", choices=typing.get_args(ThresholdRule), default="upper",
        help="what must be within the budget on dev: the 95%% upper limit of the false alarms per "
        "hour (upper) or their count (count) [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--category_hours", default="",
        help="hours of use per category of negatives, such as speech=2,music=1, that weight those "
        "of dev [the hours of dev as they are]",
    )  # fmt: skip
