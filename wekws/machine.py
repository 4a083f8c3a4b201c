"""Processor cores that this process may use."""

import os


def usable_cores() -> int:
    """Return how many CPU cores this process may use.

    Linux counts the cores that the process is allowed to run on (``taskset``, containers); other
    systems, macOS among them, count those of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
