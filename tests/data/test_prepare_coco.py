"""The script that makes COCO's semantic label maps."""

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.semantic_maps import read_semantic_labels
from tests.data.panoptic_scene import SIZES, make_coco_panoptic
from tests.golden_cases import REPOSITORY

SCRIPT = REPOSITORY / "datasets" / "prepare_coco_semantic_annos_from_panoptic_annos.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_coco", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # worker processes find its functions by this name
    spec.loader.exec_module(module)
    return module


PREPARE = load_script()


def run(root: Path, *options: str, workers: int = 1) -> int:
    common = ["--root", str(root), "--splits", "val", "--workers", str(workers)]
    status: int = PREPARE.main([*common, *options])
    return status


@pytest.fixture
def prepared(tmp_path: Path) -> list[Path]:
    assert run(make_coco_panoptic(tmp_path)) == 0
    return sorted((tmp_path / "coco" / "panoptic_semseg_val2017").iterdir())


def test_files_hold_what_is_derived_on_the_fly(prepared: list[Path], tmp_path: Path) -> None:
    records = coco_panoptic("val").load(tmp_path)
    assert len(prepared) == len(records) == len(SIZES)
    for record in records:
        from_file = np.array(Image.open(record["sem_seg_file_name"]))
        assert from_file.dtype == np.uint8
        del record["sem_seg_file_name"]
        assert (from_file == read_semantic_labels(record, 255).labels).all()


def test_several_processes_make_the_same_files(prepared: list[Path], tmp_path: Path) -> None:
    contents = [file.read_bytes() for file in prepared]
    for file in prepared:
        file.unlink()
    assert run(tmp_path, workers=2) == 0
    assert [file.read_bytes() for file in prepared] == contents


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:60]),
        lambda file: Image.fromarray(np.zeros((3, 3), np.uint8)).save(file),
        lambda file: Image.fromarray(np.zeros((61, 90), np.uint8)).save(file),
        lambda file: file.unlink(),
    ],
    ids=["truncated", "other-size", "other-labels", "missing"],
)
def test_check_names_the_file_that_is_wrong(
    damage: Callable[[Path], None],
    prepared: list[Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert run(tmp_path, "--check") == 0
    damage(prepared[0])
    assert run(tmp_path, "--check") == 1
    assert str(prepared[0]) in caplog.text
    assert "1 of 2 files are correct" in caplog.text


def test_second_run_makes_only_what_is_missing(prepared: list[Path], tmp_path: Path) -> None:
    prepared[0].unlink()
    before = prepared[1].stat().st_mtime_ns
    assert run(tmp_path) == 0
    assert prepared[0].is_file()
    assert prepared[1].stat().st_mtime_ns == before


def test_missing_dataset_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(tmp_path) == 1
    assert "panoptic_val2017.json" in caplog.text
