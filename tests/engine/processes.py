"""Real processes that share one import of the libraries, so that they start in no time."""

import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed

from tests.engine import toy

# Far more than is needed on an idle machine: the first start imports all libraries.
_PATIENCE = 600
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.engine.processes", "train_maskclippp"])


def run_in_processes(function: Callable[..., None], *arguments: Any, world_size: int) -> list[int]:
    """Call ``function(*arguments, rank=..., world_size=...)`` in a new process per rank.

    Returns:
        Exit codes of the ranks; -9 for one that was killed. Ranks that wait for one that is gone
        are killed too.
    """
    processes = [
        _context.Process(target=_call, args=(function, arguments, rank, world_size))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=_PATIENCE if processes[0].exitcode in (None, 0) else 1)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _call(
    function: Callable[..., None], arguments: tuple[Any, ...], rank: int, world_size: int
) -> None:
    # Loader workers would otherwise start from an empty process and import everything again.
    multiprocessing.set_start_method("fork", force=True)
    function(*arguments, rank=rank, world_size=world_size)
    gc.collect()  # DDP must not be the last to hold the process group, see engine/launch.py
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train_in_processes(
    output_dir: Path, *options: Any, world_size: int = 1, **arguments: Any
) -> list[int]:
    """Exit codes of the ranks of a toy training."""
    return run_in_processes(_train, output_dir, options, arguments, world_size=world_size)


def _train(
    output_dir: Path,
    options: tuple[Any, ...],
    arguments: dict[str, Any],
    *,
    rank: int,
    world_size: int,
) -> None:
    cfg = toy.toy_config(output_dir, *options)
    toy.run_toy_training(cfg, rank=rank, world_size=world_size, **arguments)
