"""Flags of every command that chooses thresholds."""

import argparse
import typing

from wekws.score.thresholds import (
    SharedThreshold,
    ThresholdOptions,
    ThresholdRule,
    category_hours_from_text,
)


def add_threshold_flags(parser: argparse.ArgumentParser) -> None:
    """Add --threshold_rule, --shared_threshold and --category_hours."""
    parser.add_argument(
        "--threshold_rule", choices=typing.get_args(ThresholdRule), default="upper",
        help="what must be within the budget on dev: the 95%% upper limit of the false alarms per "
        "hour (upper) or their count (count) [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--shared_threshold", choices=typing.get_args(SharedThreshold), default="auto",
        help="one threshold for all keywords, whose false alarms on dev are then counted together; "
        "auto: where dev allows a keyword fewer than 3 of its own [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--category_hours", default="",
        help="hours of use per category of negatives, such as speech=2,music=1, that weight those "
        "of dev [the hours of dev as they are]",
    )  # fmt: skip


def threshold_options(args: argparse.Namespace) -> ThresholdOptions:
    """Return what the flags say."""
    return ThresholdOptions(
        rule=args.threshold_rule,
        shared=args.shared_threshold,
        category_hours=category_hours_from_text(args.category_hours),
    )
