"""What the scripts in ``datasets/`` share: many files in parallel, written whole or not at all."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from maskclippp.output_files import atomic_write

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> list[Result]:
    """``function`` of every item, in order, with a progress bar; 1 worker means this process.

    ``function`` must be importable (no lambda). The first exception stops the run.
    """
    if workers <= 1:
        return [function(item) for item in tqdm(items, desc=description, unit="file")]
    chunk = max(1, min(64, len(items) // (4 * workers)))
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(function, items, chunksize=chunk)
        return list(tqdm(results, total=len(items), desc=description, unit="file"))


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a PNG, whole or not at all: an interrupted run continues where it stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=False) as file:  # there are a hundred thousand of them
        Image.fromarray(pixels).save(file, format="PNG")
