"""Processes of their own for the synthesisers, which keep global state and carry other licences.

The standard library's pools do not serve: multiprocessing.Pool waits for ever for the result of a
process that has died, and ProcessPoolExecutor forks no fresh process for every task.
"""

import collections
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Generic, TypeVar

from wekws.errors import DataError
from wekws.machine import follow_parent

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Signals of a process that has crashed by its own fault; others come from outside.
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)


@dataclass
class _Worker(Generic[Argument]):
    place: int
    argument: Argument
    process: ForkProcess


def in_fresh_processes(
    task: Callable[[Argument], Result],
    arguments: Iterable[Argument],
    num_workers: int,
    after_crash: Callable[[Argument], Argument] | None = None,
) -> Iterator[Result]:
    """Yield task(argument) in order.

    Each argument gets a process of its own, ``num_workers`` of them at a time.
    after_crash: returns what to try instead of an argument whose process crashed.
    Raises: DataError if a process crashed and there is no ``after_crash``, or if it ended in
    another way without a result (it was killed); whatever a task raises.
    """
    waiting = collections.deque(enumerate(arguments))
    running: dict[Connection, _Worker[Argument]] = {}
    results: dict[int, Result] = {}
    place = 0
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                receiver, worker = _start(task, *waiting.popleft())
                running[receiver] = worker
            ready = wait(list(running))
            for receiver in [receiver for receiver in running if receiver in ready]:
                worker = running.pop(receiver)
                try:
                    result, error = receiver.recv()
                except (EOFError, OSError):  # it died; OSError: while it sent its result
                    waiting.appendleft((worker.place, _other_argument(worker, after_crash)))
                    continue
                worker.process.join()
                if error is not None:
                    raise error
                results[worker.place] = result
            while place in results:
                yield results.pop(place)
                place += 1
    finally:
        for worker in running.values():
            worker.process.terminate()


def _start(
    task: Callable[[Argument], Any], place: int, argument: Argument
) -> tuple[Connection, _Worker[Argument]]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    # After a fork the child has the task, which is too large to send for every argument.
    process = multiprocessing.get_context("fork").Process(
        target=_work, args=(sender, task, argument)
    )
    process.start()
    sender.close()  # the process alone holds it now: its end is the end of the pipe
    return receiver, _Worker(place, argument, process)


def _work(sender: Connection, task: Callable[[Argument], Any], argument: Argument) -> None:
    follow_parent()
    try:
        sender.send((task(argument), None))
    except Exception as error:
        sender.send((None, error))


def _other_argument(
    worker: _Worker[Argument], after_crash: Callable[[Argument], Argument] | None
) -> Argument:
    worker.process.join()
    code = worker.process.exitcode
    crashed = code is not None and -code in CRASHES
    if crashed and after_crash is not None:
        return after_crash(worker.argument)
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
    if crashed:
        raise DataError(f"the synthesiser crashed ({name}); install another version of it")
    raise DataError(
        f"a process of the synthesiser was ended ({name}); if memory is short, give fewer "
        "--num_workers; begin again with the same command"
    )
