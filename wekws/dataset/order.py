"""Assignment of utterances to batches.

The batches of an epoch depend on the lengths, the seed, the epoch and the repeated utterances only:
every process computes the same ones and takes its share of each.
"""

import math
from typing import Literal

import numpy as np

from wekws.errors import DataError


def plan_batches(
    num_frames: np.ndarray,
    *,
    batch_size: int,
    epoch: int,
    seed: int,
    shuffle: bool,
    repeated: np.ndarray | None = None,
    is_negative: np.ndarray | None = None,
    negative_share: float = 1.0,
    batching: Literal["random", "bucket"] = "random",
    pool_batches: int = 16,
    world_size: int = 1,
) -> list[np.ndarray]:
    """Return the indices of each global batch of an epoch.

    Every utterance occurs, unless some of the negatives are left out of the epoch.

    num_frames: (N,) lengths in this epoch.
    repeated: indices of utterances that occur once more; None: none.
    is_negative: (N,) whether an utterance holds no keyword; only with negative_share below 1.
    batching, pool_batches, negative_share: as in ``BatchConfig``.
    Without shuffle the longest utterances come first: batches have little padding, and a batch
    that does not fit into memory is the first one.
    A last batch with fewer utterances than processes is merged into the one before.
    Raises: DataError if there are fewer utterances than processes.
    """
    if len(num_frames) < world_size:
        raise DataError(
            f"{len(num_frames)} utterances for {world_size} processes; expected at least one per"
            " process"
        )
    indices = np.arange(len(num_frames))
    if is_negative is not None and negative_share < 1.0:
        indices = _without_some_negatives(is_negative, negative_share, (seed, epoch))
    if repeated is not None:
        indices = np.concatenate([indices, repeated])
    if not shuffle:
        places = longest_first(num_frames[indices], batch_size)
        return _merge_small_last([indices[place] for place in places], world_size)
    rng = np.random.default_rng((seed, epoch))
    order = indices[rng.permutation(len(indices))]
    if batching == "bucket":
        pool_size = batch_size * pool_batches
        pools = [order[i : i + pool_size] for i in range(0, len(order), pool_size)]
        order = np.concatenate([p[np.argsort(num_frames[p], kind="stable")] for p in pools])
    batches = cut_batches(order, batch_size, world_size)
    if batching == "bucket":
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def _without_some_negatives(
    is_negative: np.ndarray, share: float, seed: tuple[int, int]
) -> np.ndarray:
    """Return the indices of all utterances with a keyword, and of a share of the others."""
    negatives = np.flatnonzero(is_negative)
    # A generator of its own: the order of the batches does not depend on the share.
    rng = np.random.default_rng((*seed, 3))
    drawn = rng.choice(negatives, math.ceil(share * len(negatives)), replace=False)
    return np.sort(np.concatenate([np.flatnonzero(~is_negative), drawn]))


def cut_batches(order: np.ndarray, batch_size: int, world_size: int) -> list[np.ndarray]:
    """Return consecutive batches of an order; a last one that is too small joins the one before."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return _merge_small_last(batches, world_size)


def longest_first(
    num_frames: np.ndarray, batch_size: int, max_frames: int | None = None
) -> list[np.ndarray]:
    """Return batches of at most ``batch_size`` utterances, the longest utterances first.

    max_frames: most frames of a batch, padding included, so that a batch of long recordings fits
    into memory; an utterance that is longer is a batch of its own. None: no limit.
    """
    order = np.argsort(-num_frames, kind="stable")
    batches, begin = [], 0
    while begin < len(order):
        longest = max(int(num_frames[order[begin]]), 1)
        count = batch_size if max_frames is None else min(batch_size, max_frames // longest)
        batches.append(order[begin : begin + max(1, count)])
        begin += max(1, count)
    return batches


def _merge_small_last(batches: list[np.ndarray], world_size: int) -> list[np.ndarray]:
    """Merge a last batch with fewer utterances than processes into the one before."""
    if len(batches) > 1 and len(batches[-1]) < world_size:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
