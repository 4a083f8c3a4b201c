"""Processor cores that this process may use, and the life of its worker processes."""

import multiprocessing
import os
import signal
import threading


def usable_cores() -> int:
    """Return how many CPU cores this process may use.

    Linux counts the cores that the process is allowed to run on (``taskset``, containers); other
    systems, macOS among them, count those of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def follow_parent() -> None:
    """Let a worker process end when its parent does, and only then; called once in the worker.

    Ctrl-C reaches all processes of a terminal: the parent ends its workers. A worker whose parent
    is killed would wait for work for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
