"""Train in several processes on this machine.

python -m wekws.bin.launch 2 -m wekws.bin.train --config ...

Each process finds its peers by the variables that torchrun sets, which is for several machines. Of
a failure only the lines of the process that failed are shown; the others end with it.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from wekws.errors import PEER_LOST
from wekws.log import run

_POLL_S = 0.1
_GRACE_S = 10.0
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


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
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(args.num_processes)]
        processes = _start(args.command, logs)
        try:
            status = _wait(processes)
        finally:
            _end(processes)
        # What the first process says is on the screen already.
        failed = [rank for rank, p in enumerate(processes) if p.returncode == status]
        if status and 0 not in failed:
            sys.stderr.write(logs[failed[0]].read_text(encoding="utf-8", errors="replace"))
    if status < 0:
        print(
            f"error: process {failed[0]} ended by {signal.Signals(-status).name}", file=sys.stderr
        )
        return 128 - status
    return status


def _start(command: Sequence[str], logs: Sequence[Path]) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(len(logs)))
    processes = []
    for rank, log in enumerate(logs):
        ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        with open(log, "wb") as stream:
            output = None if rank == 0 else stream
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **common, **ranks},
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        processes.append(process)
    return processes


def _end_with_parent() -> None:
    """Let the system kill this process when its parent is killed."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended well or one has failed; return the status of the one to blame.

    A process that has lost its peers is not: another has failed, and its status follows.
    """
    patience_s = _GRACE_S
    while patience_s > 0:
        statuses = [process.poll() for process in processes]
        failed = [status for status in statuses if status]
        if to_blame := [status for status in failed if status != PEER_LOST]:
            return to_blame[0]
        if None not in statuses:
            break
        if failed:
            patience_s -= _POLL_S
        time.sleep(_POLL_S)
    return PEER_LOST if failed else 0


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait shortly for processes that were interrupted themselves, then end all that are left."""
    for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            if process.poll() is None:
                end(process)
    for process in processes:
        process.wait()


if __name__ == "__main__":
    sys.exit(run(main))
