"""Every test sees the package's detectron2 engine, its own cache folder and fixed seeds."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import maskclippp  # noqa: F401  makes detectron2 importable before test modules are collected


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
