"""Which utterances of a list are left out, and why."""

import collections
import hashlib
import itertools
import logging
import math
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
    is_training: bool,
) -> list[str | None]:
    """Say for each utterance why it is left out, None if it is kept."""
    conf = config.filter_conf
    most_labels = conf.max_label_length if is_training else 0
    reasons: list[str | None] = []
    for ids, low, high in zip(labels, shortest.tolist(), longest.tolist(), strict=True):
        repeats = sum(a == b for a, b in itertools.pairwise(ids))
        rules = (
            (low == 0, "unreadable or too short for one frame"),
            (use_filters and high > conf.max_length, f"more than {conf.max_length} frames"),
            (use_filters and low < conf.min_length, f"fewer than {conf.min_length} frames"),
            (use_filters and len(ids) > conf.token_max_length, "more labels than token_max_length"),
            (0 < most_labels < len(ids), f"more than {most_labels} labels to train on"),
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


def keep_share(
    share: float,
    reasons: Sequence[str | None],
    keys: Sequence[str],
    is_keyword: Sequence[bool],
) -> list[str | None]:
    """Leave out all but a share of what is kept so far; return the reasons with that one added.

    Of the utterances with a keyword and of those without, each, the share (rounded up) whose keys
    have the lowest hashes stays: the same ones whatever the order of the list, and all of a small
    share are in a larger one.
    """
    thinned = list(reasons)
    for kind in (True, False):
        rows = [i for i, reason in enumerate(reasons) if reason is None and is_keyword[i] == kind]
        rows.sort(key=lambda i: hashlib.sha256(keys[i].encode()).digest())
        # A share such as 0.1 of 30 is 3 although the product is a little above it.
        for i in rows[math.ceil(share * len(rows) - 1e-9) :]:
            thinned[i] = f"not in the share of {100 * share:g} %"
    return thinned


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
