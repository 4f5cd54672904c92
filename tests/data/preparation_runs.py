"""Runs the scripts of ``datasets/``: as users do, or their ``main`` where many runs are needed."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.golden_cases import REPOSITORY

DATASETS = REPOSITORY / "datasets"


def run_process(script: str, root: Path, *options: str) -> str:
    """Run a script as a process whose root comes from the environment; returns what it reports.

    It must succeed. Two workers, a working directory that is not the repository, and no search path
    that leads to it.
    """
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = {
        **inherited,
        "DETECTRON2_DATASETS": str(root),
        "OMP_NUM_THREADS": "1",
    }
    completed = subprocess.run(
        [sys.executable, str(DATASETS / f"{script}.py"), "--workers", "2", *options],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stderr


@cache
def load_script(script: str) -> ModuleType:
    """The script as a module; worker processes find its functions by this name."""
    spec = importlib.util.spec_from_file_location(script, DATASETS / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script] = module
    spec.loader.exec_module(module)
    return module


def run_main(script: str, root: Path, *options: str, workers: int = 1) -> int:
    """Run a script's ``main`` in this process; returns the exit status."""
    arguments: Sequence[str] = ["--root", str(root), "--workers", str(workers), *options]
    status: int = load_script(script).main(arguments)
    return status


def pixels(path: Path) -> npt.NDArray[np.int64]:
    """The stored values of a picture, whatever their type."""
    with Image.open(path) as image:
        return np.array(image).astype(np.int64)


def segment_ids(path: Path) -> npt.NDArray[np.int64]:
    """The ids of a panoptic PNG [h, w]."""
    return pixels(path) @ np.array([1, 256, 65536])


def files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}
