"""What holds for every test: the engine, a cache folder of its own, fixed seeds, the marker.

``processes`` marks tests that start processes or train for long: ``make check`` leaves them out.
A test module gets the marker when it imports a module that starts processes; a module that only
trains says ``pytestmark = pytest.mark.processes``.
"""

import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import maskclippp  # noqa: F401  makes detectron2 importable before test modules are collected

_STARTERS = {"subprocess", "multiprocessing", "processes", "preparation_runs", "wandb"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of modules that start processes."""
    for item in items:
        if isinstance(item, pytest.Function) and _starts_processes(item.module):
            item.add_marker(pytest.mark.processes)


def _starts_processes(module: ModuleType) -> bool:
    """Whether a module imports one of the starters, or something that one of them defines."""
    homes = (
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
    )
    return any(str(home).rpartition(".")[2] in _STARTERS for home in homes)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text embeddings of one test must not be read by another, nor from the user's cache."""
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(_cache_folder(tmp_path_factory)))


def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
