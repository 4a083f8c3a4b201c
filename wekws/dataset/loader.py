"""Batches of an epoch in their order; a thread makes the next ones."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from wekws.dataset.batch import Batch
from wekws.dataset.order import cut_batches, plan_batches
from wekws.dataset.shards import shard_order
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


def batches(
    dataset: SpeechDataset,
    *,
    batch_size: int,
    epoch: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    shuffle: bool = False,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield this process's share of each batch of an epoch; a thread makes the next one.

    batch_size: utterances of one step, all processes together; process ``rank`` takes every
    ``world_size``-th of them, beginning at its rank.
    """

    def make(indices: np.ndarray) -> Batch:
        places = np.arange(rank, len(indices), world_size)
        batch = dataset.batch(indices[places], epoch, places=places, num_global=len(indices))
        return batch.pin_memory() if pin_memory else batch

    plan = epoch_plan(
        dataset,
        batch_size=batch_size,
        epoch=epoch,
        seed=seed,
        world_size=world_size,
        shuffle=shuffle,
    )
    dataset.start(np.concatenate([indices[rank::world_size] for indices in plan]), epoch)
    return _prefetch(make, plan, dataset.num_ahead)


def epoch_plan(
    dataset: SpeechDataset,
    *,
    batch_size: int,
    epoch: int = 0,
    seed: int = 0,
    world_size: int = 1,
    shuffle: bool = False,
) -> list[np.ndarray]:
    """Return the global batches of an epoch as indices; the length is the number of steps."""
    conf = dataset.config.batch_conf
    if dataset.shards is not None:
        if batch_size % world_size:
            raise ConfigError(
                f"batch_conf.batch_size {batch_size}: with shards, expected a multiple of the "
                f"{world_size} processes"
            )
        order = shard_order(
            dataset.shards,
            epoch=epoch,
            seed=seed,
            world_size=world_size,
            buffer_size=dataset.config.shuffle_size if shuffle else 1,
            repeated=dataset.repeated,
        )
        return cut_batches(order, batch_size, world_size)
    return plan_batches(
        dataset.frames_in(epoch),
        batch_size=batch_size,
        epoch=epoch,
        seed=seed,
        shuffle=shuffle,
        repeated=dataset.repeated,
        is_negative=~dataset.is_keyword if shuffle else None,
        negative_share=conf.negative_share,
        batching=conf.batching,
        pool_batches=conf.pool_batches,
        world_size=world_size,
    )


def _prefetch(
    make: Callable[[Item], Result], items: Iterable[Item], num_ahead: int = 1
) -> Iterator[Result]:
    """Yield make(item) for each item while ``num_ahead`` threads make the next ones.

    If the consumer stops early, or either side raises, the threads are waited for and ended.
    """
    with ThreadPoolExecutor(num_ahead, thread_name_prefix="batches") as threads:
        pending: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            pending.append(threads.submit(make, item))
            if len(pending) > num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
