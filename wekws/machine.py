"""Capabilities of the processor, and the life of worker processes."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

# Names that Linux gives them in /proc/cpuinfo.
_BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def usable_cores() -> int:
    """Return how many CPU cores this process may use.

    Linux counts the cores that the process is allowed to run on (``taskset``, containers); other
    systems, macOS among them, count those of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_process(num_threads: int, num_processes: int) -> int:
    """Return the CPU threads of one of several processes; 0 asked for: its share of the cores."""
    return num_threads or max(1, usable_cores() // num_processes)


def has_bf16_instructions() -> bool:
    """Return whether the CPU multiplies in bfloat16 itself: x86 with AVX-512 BF16 or AMX, on Linux.

    Without such instructions every product in bfloat16 is emulated.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _BF16_INSTRUCTIONS.isdisjoint(flags.split())


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
