"""Starts the processes of a run."""

import datetime
import logging
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = datetime.timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: datetime.timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call ``main_func(*args)`` in every process of a run.

    For one process this is a plain call, without a process group. Otherwise one child process per
    GPU is started, with NCCL; on a machine without GPUs, the same number of CPU processes, with
    gloo.

    Args:
        main_func: runs in each process; its result is ignored.
        num_gpus_per_machine: processes per machine.
        num_machines: each machine makes this call, with its own ``machine_rank`` from 0.
        dist_url: address of rank 0, ``tcp://host:port``; ``"auto"``: a free port, for one machine
            only; ``file://`` needs shared storage.
        timeout: of each communication.

    Raises:
        AssertionError: ``"auto"`` with several machines, or no ``dist_url``.
        torch.multiprocessing.ProcessRaisedException: a child failed.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    assert dist_url is not None, "a run of several processes needs a dist_url"
    if dist_url == "auto":
        assert num_machines == 1, "dist_url=auto not supported in multi-machine jobs."
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    if num_machines > 1 and dist_url.startswith("file://"):
        logging.getLogger(__name__).warning(
            "file:// is not a reliable dist_url for several machines; prefer tcp://"
        )
    multiprocessing.start_processes(
        _run_child,
        nprocs=num_gpus_per_machine,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout),
        daemon=False,  # data loaders start processes
        start_method="spawn",
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _run_child(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    processes_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: datetime.timedelta,
) -> None:
    """Join the process group as one of its ranks, then run ``main_func``."""
    use_gpu = torch.cuda.is_available()
    if use_gpu:
        present = torch.cuda.device_count()
        assert processes_per_machine <= present, (
            f"{processes_per_machine} GPUs requested, but this machine has {present}"
        )
        # Before the group exists: NCCL would otherwise put the first buffers of all ranks on GPU 0.
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        backend="nccl" if use_gpu else "gloo",
        init_method=dist_url,
        world_size=world_size,
        rank=machine_rank * processes_per_machine + local_rank,
        timeout=timeout,
    )
    comm.create_local_process_group(processes_per_machine, timeout)
    # Ranks that start early would time out while others still initialize.
    comm.synchronize()
    main_func(*args)
    # Not after an exception: this would wait for the other ranks.
    dist.destroy_process_group()
