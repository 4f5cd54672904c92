"""Runs toy trainings in real processes that share one import of the libraries."""

import multiprocessing
import multiprocessing.process
from pathlib import Path
from typing import Any

from tests.engine import toy

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.engine.processes"])


def _train(output_dir: Path, options: tuple[Any, ...], arguments: dict[str, Any]) -> None:
    # Loader workers would otherwise start from an empty process and import everything again.
    multiprocessing.set_start_method("fork", force=True)
    toy.run_toy_training(toy.toy_config(output_dir, *options), **arguments)


def train_in_processes(
    output_dir: Path, *options: Any, world_size: int = 1, **arguments: Any
) -> list[int | None]:
    """Exit codes of the ranks; -9 for one that was killed. Ranks left waiting are killed too."""
    processes = [
        _context.Process(
            target=_train,
            args=(output_dir, options, {"rank": rank, "world_size": world_size, **arguments}),
        )
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    processes[0].join(timeout=120)
    for process in processes[1:]:
        process.join(timeout=120 if processes[0].exitcode == 0 else 0)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
