"""Processes of their own for the synthesisers, which keep global state and carry other licences."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from wekws.machine import follow_parent

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_task: Callable[[Any], Any]  # inherited by the workers at the fork: too large to send per chunk


def _run_task(argument: Any) -> Any:
    return _task(argument)


def in_fresh_processes(
    task: Callable[[Argument], Result], arguments: Iterable[Argument], num_workers: int
) -> Iterator[Result]:
    """Yield task(argument) in order.

    Each argument gets a process of its own, `num_workers` of them at a time.
    """
    global _task
    _task = task
    context = multiprocessing.get_context("fork")
    with context.Pool(num_workers, follow_parent, maxtasksperchild=1) as pool:
        yield from pool.imap(_run_task, arguments, chunksize=1)
