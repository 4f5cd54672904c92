"""Communication between the processes of a run; also works without a process group."""

import datetime
import functools
import random
from typing import Any

import torch
import torch.distributed as dist

__all__ = [
    "all_gather",
    "create_local_process_group",
    "gather",
    "get_local_rank",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "shared_random_seed",
    "synchronize",
]

# Set by launch: number of processes per machine, and timeout of communications.
_processes_per_machine: int | None = None
_timeout: datetime.timedelta | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is rank 0, which writes files."""
    return get_rank() == 0


def create_local_process_group(
    num_workers_per_machine: int, timeout: datetime.timedelta | None = None
) -> None:
    """Declare which processes share a machine; each process calls this once.

    Args:
        num_workers_per_machine: this many consecutive ranks share a machine.
        timeout: of each communication, in any group; None: torch's default.

    Raises:
        ValueError: the world size is not a multiple of ``num_workers_per_machine``.
    """
    global _processes_per_machine, _timeout
    if get_world_size() % num_workers_per_machine:
        raise ValueError(
            f"{get_world_size()} processes do not fill machines of {num_workers_per_machine}"
        )
    _processes_per_machine, _timeout = num_workers_per_machine, timeout


def get_local_rank() -> int:
    """Index of this process among those of its machine."""
    if not _is_distributed():
        return 0
    if _processes_per_machine is None:
        raise RuntimeError(
            "the layout of the run is unknown: start processes by detectron2.engine.launch"
        )
    return get_rank() % _processes_per_machine


def synchronize() -> None:
    """Wait until all processes have called this."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Without device_ids, NCCL guesses the GPU of this rank.
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def _cpu_group() -> dist.ProcessGroup | None:
    """A group for objects in CPU memory: gloo if the default group is NCCL."""
    return _gloo_group() if dist.get_backend() == dist.Backend.NCCL else dist.group.WORLD


@functools.lru_cache(maxsize=1)
def _gloo_group() -> dist.ProcessGroup:
    # A new group does not inherit the world's timeout.
    return dist.new_group(backend="gloo", timeout=_timeout)


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The picklable ``data`` of all processes, ordered by rank."""
    if get_world_size() == 1:
        return [data]
    group = _cpu_group() if group is None else group
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The picklable ``data`` of all processes, ordered by rank, on rank ``dst``; else ``[]``."""
    if get_world_size() == 1:
        return [data]
    group = _cpu_group() if group is None else group
    is_destination = dist.get_rank(group) == dst
    gathered: list[Any] | None = [None] * dist.get_world_size(group) if is_destination else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered if gathered is not None else []


def shared_random_seed() -> int:
    """A random number, the same on all processes, which must all call this."""
    return all_gather(random.SystemRandom().randrange(2**31))[0]
