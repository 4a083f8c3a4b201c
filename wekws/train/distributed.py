"""One process or several: gradients add up, and rank 0 alone writes."""

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wekws.errors import ConfigError, PeerLost
from wekws.machine import threads_of_process


@dataclass(frozen=True)
class Process:
    """This process among its peers."""

    rank: int
    """Number of this process, from 0."""
    world_size: int
    """Number of processes."""
    device: torch.device
    """Device of its model."""

    @property
    def is_first(self) -> bool:
        """True for the one process that logs and writes files."""
        return self.rank == 0


def start(device: str = "auto", num_threads: int = 0) -> Process:
    """Join the peers that ``torchrun`` started, or run alone.

    From here on numbers below 1.2e-38 are 0 in this process. A CPU computes with them many times
    as slowly as with others, and the scores of unlikely paths are full of them.
    device: ``auto`` (a GPU per process if there are enough, else the CPU), ``cpu`` or ``cuda``.
    num_threads: CPU threads of this process; 0 shares the cores available among the local peers.
    Raises: ConfigError when a GPU is asked for and absent.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    chosen = choose_device(device, local_rank, num_local)
    torch.set_num_threads(threads_of_process(num_threads, num_local))
    torch.set_flush_denormal(True)
    if world_size > 1:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        # The first process may extract hours of features while its peers wait at a barrier.
        dist.init_process_group(backend, timeout=timedelta(hours=6))
    return Process(rank, world_size, chosen)


def choose_device(device: str, local_rank: int, num_local: int) -> torch.device:
    """Return the device of one of ``num_local`` processes of this machine.

    Raises: ConfigError when GPUs are asked for and absent.
    """
    num_gpus = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and num_gpus < num_local):
        return torch.device("cpu")
    if num_gpus < num_local:
        few = f"only {num_gpus}" if num_gpus else "none"
        raise ConfigError(
            f"--device {device}: needs {num_local} GPU{'s' if num_local > 1 else ''} "
            f"(--num_processes {num_local}), and torch finds {few} here; give --device cpu or auto"
        )
    return torch.device("cuda", local_rank)


def stop(process: Process) -> None:
    """Wait for the peers; the process then ends with Python, without tearing the group down.

    Now and then, on loaded cores, a process that destroyed its group was aborted on the way out
    ("terminate called without an active exception": a thread of the backend still ran), and its
    finished run counted as failed. Nothing is left for a teardown to do here.
    """
    if process.world_size > 1:
        barrier(process)
        atexit.register(_exit_at_once)


def _exit_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def barrier(process: Process) -> None:
    """Wait for all peers."""
    if process.world_size > 1:
        with _reached_peers(process):
            dist.barrier()


@contextlib.contextmanager
def _reached_peers(process: Process) -> Iterator[None]:
    """Turn the failure of an exchange into one line: a peer has ended, so this process ends too.

    Raises: PeerLost.
    """
    try:
        yield
    except RuntimeError as error:
        cause = (str(error).strip().splitlines() or [""])[0]
        raise PeerLost(
            f"process {process.rank} of {process.world_size} ends: another process has ended or "
            f"cannot be reached ({cause}); its own last lines say why. Start all processes again "
            "with --resume"
        ) from error


def add_over_peers(process: Process, values: Tensor) -> Tensor:
    """Return the elementwise sum of ``values`` over all processes."""
    if process.world_size > 1:
        with _reached_peers(process):
            dist.all_reduce(values)
    return values


def max_over_peers(process: Process, values: Tensor) -> Tensor:
    """Return the elementwise maximum of ``values`` over all processes."""
    if process.world_size > 1:
        with _reached_peers(process):
            dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def add_gradients(process: Process, parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all processes in place, in one message.

    Losses are divided by the global batch's size, so the sum is the global batch's gradient. A
    parameter that no process has a gradient for is left without: the optimiser passes it over.
    """
    if process.world_size == 1:
        return
    is_used = torch.tensor([float(p.grad is not None) for p in parameters])
    flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    summed = torch.cat([is_used.to(flat[0].device), *(grad.flatten() for grad in flat)])
    add_over_peers(process, summed)
    parts = summed.split([len(parameters), *(p.numel() for p in parameters)])
    for parameter, num, part in zip(parameters, parts[0].tolist(), parts[1:], strict=True):
        parameter.grad = part.view_as(parameter) if num else None


def copy_from_first(process: Process, model: nn.Module) -> None:
    """Give every process the weights and buffers of rank 0."""
    if process.world_size > 1:
        with _reached_peers(process):
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value.detach(), src=0)
