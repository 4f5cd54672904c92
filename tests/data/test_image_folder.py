"""Folders as people have them: mixed suffixes, label patterns, hidden files, images alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.data.custom import register_custom_datasets
from maskclippp.errors import InputError
from maskclippp.evaluation import build_evaluator

NAME = "folder_for_tests"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    yield
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def pairs(root: Path, **entry: Any) -> list[tuple[str, str]]:
    """The names of images and label maps of the dataset in ``root``."""
    complete = {"name": NAME, "kind": "index_png", "words": ["sky", "dog"], **entry}
    register_custom_datasets([complete])
    return [
        tuple(
            Path(record[key]).relative_to(root).as_posix()
            for key in ("file_name", "sem_seg_file_name")
            if key in record
        )
        for record in DatasetCatalog.get(NAME)
    ]


def save(root: Path, *names: str) -> None:
    """Images, or label maps where the name has ``label``, ``mask`` or ``seg``."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        is_label = any(word in name for word in ("label", "mask", "seg"))
        pixels = np.zeros((4, 6), np.uint8) if is_label else np.zeros((4, 6, 3), np.uint8)
        Image.fromarray(pixels).save(file)


def test_suffixes_may_be_mixed(tmp_path: Path) -> None:
    save(tmp_path, "im/a.JPG", "im/b.png", "im/s/c.tiff", "labels/a.png", "labels/b.tif")
    save(tmp_path, "labels/s/c.TIFF")
    found = pairs(tmp_path, images=str(tmp_path / "im"), annotations=str(tmp_path / "labels"))
    assert found == [
        ("im/a.JPG", "labels/a.png"),
        ("im/b.png", "labels/b.tif"),
        ("im/s/c.tiff", "labels/s/c.TIFF"),
    ]


@pytest.mark.parametrize("suffix", ["_mask.png", "_segmentation.png"])
def test_label_maps_may_lie_beside_their_images(suffix: str, tmp_path: Path) -> None:
    save(tmp_path, "x/a.jpg", f"x/a{suffix}", "x/b.png", f"x/b{suffix}")
    folders = {"images": str(tmp_path / "x"), "annotations": str(tmp_path / "x")}
    assert pairs(tmp_path, **folders, label_suffix=suffix) == [
        ("x/a.jpg", f"x/a{suffix}"),
        ("x/b.png", f"x/b{suffix}"),
    ]


def test_images_that_are_their_own_label_maps_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "labels/a.png")
    folders = {"images": str(tmp_path / "labels"), "annotations": str(tmp_path / "labels")}
    with pytest.raises(InputError, match=r"labels/a\.png is found as image and as its label map"):
        pairs(tmp_path, **folders)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, "im/a.jpg", "labels/a.png")
    shadows = ("im/__MACOSX/c.jpg", "labels/__MACOSX/c.png")
    for hidden in ("im/._a.jpg", "im/.cache/b.jpg", *shadows, "labels/.d.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"\0\5\26\7")
    folders = {"images": str(tmp_path / "im"), "annotations": str(tmp_path / "labels")}
    assert pairs(tmp_path, **folders) == [("im/a.jpg", "labels/a.png")]


def test_images_alone_are_a_dataset_that_cannot_be_scored(tmp_path: Path) -> None:
    save(tmp_path, "im/b.png", "im/a.jpg")
    found = pairs(tmp_path, kind="images", images=str(tmp_path / "im"), words="cat, kitten; table")
    assert found == [("im/a.jpg",), ("im/b.png",)]
    assert MetadataCatalog.get(NAME).stuff_classes == ["cat, kitten", "table"]
    with pytest.raises(InputError, match=r"has no annotation .* nothing can be scored"):
        build_evaluator(get_cfg(), NAME, tmp_path)


@pytest.mark.parametrize("ignore", [-1, 65536])
def test_ignore_is_a_value_of_label_files(ignore: int, tmp_path: Path) -> None:
    save(tmp_path, "im/a.jpg", "labels/a.png")
    folders = {"images": str(tmp_path / "im"), "annotations": str(tmp_path / "labels")}
    with pytest.raises(InputError, match=rf"ignore must be a value .* 0\.\.65535, found {ignore}"):
        pairs(tmp_path, **folders, ignore=ignore)
