"""Communication between the processes of a run. Everything also works without a process group."""

import functools
import random
from typing import Any

import torch
import torch.distributed as dist

__all__ = [
    "all_gather",
    "create_local_process_group",
    "gather",
    "get_local_process_group",
    "get_local_rank",
    "get_local_size",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "reduce_dict",
    "shared_random_seed",
    "synchronize",
]

# The processes of this machine: the group object and its ranks in the whole world. Set by launch.
_local_group: dist.ProcessGroup | None = None
_local_ranks: tuple[int, ...] | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes of the run."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Number of this process in the run, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is rank 0, which writes files."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Create one group per machine; every process of the run must call this once.

    Raises:
        RuntimeError: called twice.
        ValueError: the world is no multiple of the machine size.
    """
    global _local_group, _local_ranks
    if _local_ranks is not None:
        raise RuntimeError("the local process group exists already")
    world = get_world_size()
    if world % num_workers_per_machine:
        raise ValueError(f"{world} processes do not fill machines of {num_workers_per_machine}")
    for start in range(0, world, num_workers_per_machine):
        ranks = tuple(range(start, start + num_workers_per_machine))
        group = dist.new_group(list(ranks))
        if get_rank() in ranks:
            _local_group, _local_ranks = group, ranks


def get_local_process_group() -> dist.ProcessGroup | None:
    """The group of this machine's processes, or None in a run of one process."""
    if _is_distributed() and _local_ranks is None:
        raise RuntimeError("no local process group: start processes by detectron2.engine.launch")
    return _local_group


def get_local_rank() -> int:
    """Number of this process among those of this machine."""
    if not _is_distributed():
        return 0
    return get_rank() - _ranks_of_this_machine()[0]


def get_local_size() -> int:
    """Number of processes on this machine."""
    return len(_ranks_of_this_machine()) if _is_distributed() else 1


def _ranks_of_this_machine() -> tuple[int, ...]:
    if _local_ranks is None:
        raise RuntimeError("no local process group: start processes by detectron2.engine.launch")
    return _local_ranks


def synchronize() -> None:
    """Wait until every process is here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Without the device id NCCL guesses which GPU belongs to this rank.
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.lru_cache(maxsize=1)
def _cpu_group() -> dist.ProcessGroup | None:
    """A group that carries CPU objects: a gloo one beside an NCCL world."""
    if dist.get_backend() == dist.Backend.NCCL:
        return dist.new_group(backend="gloo")
    return dist.group.WORLD


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The picklable ``data`` of every process, ordered by rank, on every process."""
    if get_world_size() == 1:
        return [data]
    group = _cpu_group() if group is None else group
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The picklable ``data`` of every process, ordered by rank, on rank ``dst``; else ``[]``."""
    if get_world_size() == 1:
        return [data]
    group = _cpu_group() if group is None else group
    is_destination = dist.get_rank(group) == dst
    gathered: list[Any] | None = [None] * dist.get_world_size(group) if is_destination else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered if gathered is not None else []


def shared_random_seed() -> int:
    """A random number that is the same on every process. All processes must call it."""
    return all_gather(random.SystemRandom().randrange(2**31))[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum (or average) scalar tensors of equal keys over the processes; the result is on rank 0.

    Other ranks get values without meaning, as in ``torch.distributed.reduce``.
    """
    world = get_world_size()
    if world == 1:
        return input_dict
    with torch.no_grad():
        # Sorted: the processes must stack in the same order.
        names = sorted(input_dict)
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if average and is_main_process():
            values /= world
        return dict(zip(names, values, strict=True))
