"""Train in several processes on this machine.

python -m wekws.bin.launch 2 -m wekws.bin.train --config ...

Each process finds its peers by the variables that torchrun sets, which is for several machines.
Results are printed by the first one. Warnings of all are shown, and of a failure the lines of the
process that failed; the others end with it.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from wekws.errors import PEER_LOST
from wekws.log import run

_POLL_S = 0.1
_GRACE_S = 10.0
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(kw_only=True)
class _Worker:
    process: subprocess.Popen[str]
    last_words: list[str] = field(default_factory=list)
    """Lines of an error or interruption, held back: most often another process says the same."""
    reader: threading.Thread | None = None
    """Shows what it says; None for the first process, which writes to the terminal itself."""


def main(argv: list[str] | None = None) -> int:
    """Start the processes and wait for them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("num_processes", type=int, help="processes, 1 or more")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="arguments of Python")
    args = parser.parse_args(argv)
    if args.num_processes < 1 or not args.command:
        parser.error("expected a number of processes from 1 and a command, such as -m MODULE")
    workers = _start(args.command, args.num_processes)
    try:
        to_blame = _wait(workers)
    except KeyboardInterrupt:
        return 130  # the first process says so
    finally:
        _end(workers)
    if to_blame is None:
        return 0
    sys.stderr.writelines(workers[to_blame].last_words)
    status = workers[to_blame].process.returncode
    if status < 0:
        name = signal.Signals(-status).name
        print(f"error: process {to_blame} ended by {name}", file=sys.stderr)
        return 128 - status
    return status


def _start(command: Sequence[str], num: int) -> list[_Worker]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num))
    workers = []
    for rank in range(num):
        ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **common, **ranks},
            stdout=subprocess.DEVNULL if rank else None,
            stderr=subprocess.PIPE if rank else None,
            encoding="utf-8",
            errors="replace",
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        workers.append(_Worker(process=process))
    for worker in workers[1:]:  # after the last fork
        worker.reader = threading.Thread(target=_show, args=(worker,), daemon=True)
        worker.reader.start()
    return workers


def _end_with_parent() -> None:
    """Let the system kill this process when its parent is killed."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _show(worker: _Worker) -> None:
    """Pass on what a process says, and hold its last words."""
    assert worker.process.stderr is not None
    for line in worker.process.stderr:
        if worker.last_words or line.startswith(("error: ", "interrupted")):
            worker.last_words.append(line)
        else:
            sys.stderr.write(line)
            sys.stderr.flush()


def _wait(workers: Sequence[_Worker]) -> int | None:
    """Wait until all have ended well or one has failed; return the number of the one to blame.

    A process that has lost its peers is not: another has failed, and its status follows.
    """
    patience_s = _GRACE_S
    while True:
        statuses = [worker.process.poll() for worker in workers]
        failed = [rank for rank, status in enumerate(statuses) if status]
        to_blame = [rank for rank in failed if statuses[rank] != PEER_LOST]
        if to_blame:
            return to_blame[0]
        if None not in statuses or patience_s <= 0:
            return failed[0] if failed else None
        if failed:
            patience_s -= _POLL_S
        time.sleep(_POLL_S)


def _end(workers: Sequence[_Worker]) -> None:
    """Wait shortly for processes that were interrupted themselves, then end all that are left."""
    for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(1.0)
            if worker.process.poll() is None:
                end(worker.process)
    for worker in workers:
        worker.process.wait()
        if worker.reader is not None:
            worker.reader.join(_GRACE_S)


if __name__ == "__main__":
    sys.exit(run(main))
