"""Which utterances make up which batch.

A plan is a function of the lengths, the seed and the epoch alone: every process computes the
same one and takes its share of each batch, whatever the number of processes.
"""

from typing import Literal

import numpy as np

from wekws.errors import DataError


def plan_batches(
    num_frames: np.ndarray,
    batch_size: int,
    *,
    epoch: int,
    seed: int,
    shuffle: bool,
    batching: Literal["random", "bucket"] = "random",
    pool_batches: int = 16,
    world_size: int = 1,
) -> list[np.ndarray]:
    """Return the indices of each global batch of an epoch; every utterance occurs once.

    num_frames: (N,) lengths in this epoch. Without shuffle the longest come first, so that
    batches hold little padding and memory runs out at once or never.
    A last batch with fewer utterances than processes is joined to the one before.
    Raises: DataError if there are fewer utterances than processes.
    """
    if len(num_frames) < world_size:
        raise DataError(
            f"{len(num_frames)} utterances for {world_size} processes; expected at least one each"
        )
    if not shuffle:
        return _fill_last(longest_first(num_frames, batch_size), world_size)
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(num_frames))
    if batching == "bucket":
        pool_size = batch_size * pool_batches
        pools = [order[i : i + pool_size] for i in range(0, len(order), pool_size)]
        order = np.concatenate([p[np.argsort(num_frames[p], kind="stable")] for p in pools])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    batches = _fill_last(batches, world_size)
    if batching == "bucket":
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def longest_first(
    num_frames: np.ndarray, batch_size: int, max_frames: int | None = None
) -> list[np.ndarray]:
    """Cut utterances, longest first, into batches of at most ``batch_size``.

    max_frames: unless it is a single utterance, a batch has at most so many frames, padding
    included: recordings of an hour and of a second fit one memory. None: any number.
    """
    order = np.argsort(-num_frames, kind="stable")
    batches, begin = [], 0
    while begin < len(order):
        longest = max(int(num_frames[order[begin]]), 1)
        count = batch_size if max_frames is None else min(batch_size, max_frames // longest)
        batches.append(order[begin : begin + max(1, count)])
        begin += max(1, count)
    return batches


def _fill_last(batches: list[np.ndarray], world_size: int) -> list[np.ndarray]:
    """Join a last batch that is too small for all processes to the one before."""
    if len(batches) > 1 and len(batches[-1]) < world_size:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
