"""Utterances of a list that are left out of a data set, with the reasons."""

import collections
import hashlib
import itertools
import logging
import math
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.manifest import Utterance
from wekws.errors import DataError

logger = logging.getLogger(__name__)

LONG_S = 120.0
"""Recordings above this duration are left out of training before their features are extracted, and
scored piece by piece."""


def without_long(
    data_list: str | os.PathLike[str], utterances: Sequence[Utterance], config: DatasetConfig
) -> Sequence[Utterance]:
    """Return the utterances without recordings of minutes or hours that training leaves out.

    Their features would need gigabytes, and ``filter_reasons`` would leave them out: above `LONG_S`
    by the duration in the list, and above ``filter_conf.max_length`` however fast augmentation
    plays them. How many they are is logged.
    Raises: DataError if none is left.
    """
    augmentation = config.augmentation
    fastest = 1.0
    if augmentation is not None:
        fastest = max(augmentation.speeds) * max(augmentation.tempos)
    max_length, front_end = config.filter_conf.max_length, config.front_end
    hop_s = front_end.frame_shift_ms / 1000
    most_s = max(LONG_S, fastest * (max_length * hop_s + front_end.frame_length_ms / 1000))
    long = [utterance for utterance in utterances if utterance.duration > most_s]
    if not long:
        return utterances
    reason = f"longer than {most_s:g} s, so more than {max_length} frames"
    logger.info(
        "%s: %d left out before extraction: %s (first: %s)",
        data_list, len(long), reason, long[0].key,
    )  # fmt: skip
    if len(long) == len(utterances):
        raise DataError(
            f"{data_list}: no utterance is left: {len(long)} {reason}; see dataset_conf.filter_conf"
        )
    return [utterance for utterance in utterances if utterance.duration <= most_s]


def filter_reasons(
    *,
    config: DatasetConfig,
    labels: Sequence[Sequence[int]],
    shortest: np.ndarray,
    longest: np.ndarray,
    use_filters: bool,
    is_training: bool,
) -> list[str | None]:
    """Return for each utterance why it is left out, None if it is kept.

    labels: label ids of N utterances. shortest, longest: (N,) fewest and most filterbank frames
    that each can have in any epoch.
    use_filters: False applies only what any use needs: at least one frame.
    is_training: filter_conf.max_label_length applies too.
    """
    conf, front_end = config.filter_conf, config.front_end
    max_labels = conf.max_label_length if is_training else 0
    num = np.fromiter(map(len, labels), np.int64, len(labels))
    rules = [
        (shortest == 0, "unreadable or too short for one frame"),
        ((0 < max_labels) & (max_labels < num), f"more than {max_labels} labels to train on"),
    ]
    if use_filters:
        needed = num + _num_repeats(labels, num)
        rules += [
            (longest > conf.max_length, f"more than {conf.max_length} frames"),
            (shortest < conf.min_length, f"fewer than {conf.min_length} frames"),
            (num > conf.token_max_length, "more labels than token_max_length"),
            (num < conf.token_min_length, "fewer labels than token_min_length"),
            (num > conf.max_output_input_ratio * shortest, "too many labels per frame"),
            (num < conf.min_output_input_ratio * longest, "too few labels per frame"),
            (-(-shortest // front_end.frame_skip) < needed, "no CTC path"),
        ]
    reasons: list[str | None] = [None] * len(labels)
    for applies, reason in reversed(rules):  # of several the first one counts
        for i in np.flatnonzero(applies).tolist():
            reasons[i] = reason
    return reasons


def _num_repeats(labels: Sequence[Sequence[int]], num: np.ndarray) -> np.ndarray:
    """Return how many labels of each utterance equal the one before, (N,)."""
    flat = np.fromiter(itertools.chain.from_iterable(labels), np.int64, int(num.sum()))
    owner = np.repeat(np.arange(len(num)), num)
    is_repeat = (flat[1:] == flat[:-1]) & (owner[1:] == owner[:-1])
    return np.bincount(owner[1:][is_repeat], minlength=len(num))


def keep_share(
    reasons: Sequence[str | None],
    *,
    share: float,
    keys: Sequence[str],
    is_keyword: npt.NDArray[np.bool_],
) -> list[str | None]:
    """Leave out all but a share of the utterances that are kept so far; return all reasons.

    The share applies to utterances with and without a keyword separately and is rounded up. The
    utterances whose keys have the lowest hashes stay, so the choice does not depend on the order
    of the list, and a larger share contains a smaller one.
    """
    thinned = list(reasons)
    if share == 1.0:
        return thinned
    for kind in (True, False):
        rows = [i for i, reason in enumerate(reasons) if reason is None and is_keyword[i] == kind]
        rows.sort(key=lambda i: hashlib.sha256(keys[i].encode()).digest())
        # 0.1 * 30 is a little above 3 in floating point; its share is 3.
        for i in rows[math.ceil(share * len(rows) - 1e-9) :]:
            thinned[i] = f"not in the share of {100 * share:g} %"
    return thinned


def report_left_out(
    data_list: str | os.PathLike[str],
    utterances: Sequence[Utterance],
    reasons: Sequence[str | None],
) -> None:
    """Log how many utterances were left out, for each reason.

    Raises: DataError if none is left.
    """
    counts = collections.Counter(reason for reason in reasons if reason is not None)
    for reason, count in counts.most_common():
        first = utterances[reasons.index(reason)].key
        logger.info("%s: %d left out: %s (first: %s)", data_list, count, reason, first)
    if counts.total() == len(utterances):
        found = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        raise DataError(f"{data_list}: no utterance is left: {found}; see dataset_conf.filter_conf")
