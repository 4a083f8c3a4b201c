"""Which utterances of a list are left out, and why."""

import collections
import itertools
import logging
import os
from collections.abc import Sequence

import numpy as np

from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.manifest import Utterance
from wekws.errors import DataError

log = logging.getLogger(__name__)


def reasons_against(
    config: DatasetConfig,
    labels: Sequence[Sequence[int]],
    shortest: np.ndarray,
    longest: np.ndarray,
    use_filters: bool,
) -> list[str | None]:
    """Say for each utterance why it is left out, None if it is kept."""
    conf = config.filter_conf
    reasons: list[str | None] = []
    for ids, low, high in zip(labels, shortest.tolist(), longest.tolist(), strict=True):
        repeats = sum(a == b for a, b in itertools.pairwise(ids))
        rules = (
            (low == 0, "unreadable or too short for one frame"),
            (use_filters and high > conf.max_length, f"more than {conf.max_length} frames"),
            (use_filters and low < conf.min_length, f"fewer than {conf.min_length} frames"),
            (use_filters and len(ids) > conf.token_max_length, "more labels than token_max_length"),
            (
                use_filters and len(ids) < conf.token_min_length,
                "fewer labels than token_min_length",
            ),
            (
                use_filters and len(ids) > conf.max_output_input_ratio * low,
                "too many labels a frame",
            ),
            (
                use_filters and len(ids) < conf.min_output_input_ratio * high,
                "too few labels a frame",
            ),
            (use_filters and -(-low // config.frame_skip) < len(ids) + repeats, "no CTC path"),
        )
        reasons.append(next((reason for applies, reason in rules if applies), None))
    return reasons


def report_left_out(
    data_list: str | os.PathLike[str],
    utterances: Sequence[Utterance],
    reasons: Sequence[str | None],
) -> None:
    """Log how many were left out for each reason.

    Raises: DataError if none is left.
    """
    counts = collections.Counter(reason for reason in reasons if reason is not None)
    for reason, count in counts.most_common():
        first = utterances[reasons.index(reason)].key
        log.info("%s: %d left out: %s (first: %s)", data_list, count, reason, first)
    if counts.total() == len(utterances):
        found = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        raise DataError(f"{data_list}: no utterance is left: {found}; see dataset_conf.filter_conf")
