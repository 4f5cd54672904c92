"""Semantic datasets: images and label maps are paired by name, and what is wrong is said."""

import logging
from pathlib import Path

import pytest

from maskclippp.data.semantic import SemanticDataset

DATASET = SemanticDataset(
    name="test_semantic",
    images="set/images",
    annotations="set/labels",
    words="pascal_voc_21",
    preparation="run the script",
)


def make(root: Path, images: list[str], labels: list[str]) -> None:
    """Empty files: nothing is opened before a mapper asks for it."""
    for folder, names in (("images", images), ("labels", labels)):
        for name in names:
            file = root / "set" / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def stems(root: Path) -> list[tuple[str, str]]:
    return [
        (
            Path(record["file_name"]).relative_to(root / "set/images").as_posix(),
            Path(record["sem_seg_file_name"]).relative_to(root / "set/labels").as_posix(),
        )
        for record in DATASET.load(root)
    ]


def test_pairs_have_the_same_relative_path(tmp_path: Path) -> None:
    make(tmp_path, ["b.jpg", "a/x.jpg", "a/y.jpg"], ["a/y.png", "b.png", "a/x.png"])
    assert stems(tmp_path) == [
        ("a/x.jpg", "a/x.png"),
        ("a/y.jpg", "a/y.png"),
        ("b.jpg", "b.png"),
    ]


def test_files_of_other_kinds_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, ["a.jpg", "notes.txt"], ["a.png", "a.json"])
    assert stems(tmp_path) == [("a.jpg", "a.png")]
    assert not caplog.records


def test_linked_folders_are_searched(tmp_path: Path) -> None:
    make(tmp_path, ["part/a.jpg"], ["part/a.png"])
    moved = tmp_path / "elsewhere"
    (tmp_path / "set/images/part").rename(moved)
    (tmp_path / "set/images/part").symlink_to(moved)
    assert stems(tmp_path) == [("part/a.jpg", "part/a.png")]


def test_files_without_partner_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = [f"image_{index:02d}.jpg" for index in range(11)]
    make(tmp_path, ["a.jpg", *alone], ["a.png", "label.png"])
    with caplog.at_level(logging.WARNING):
        assert stems(tmp_path) == [("a.jpg", "a.png")]
    (message,) = (record.getMessage() for record in caplog.records)
    assert "test_semantic has 12 images and 2 label maps; the 12 files without a partner" in message
    assert "image_09.jpg" in message
    assert "image_10.jpg" not in message


def test_equally_many_files_with_other_names_are_not_paired_by_position(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.jpg"], ["a.png", "c.png"])
    assert stems(tmp_path) == [("a.jpg", "a.png")]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([], [], r"expected images \*\.jpg in this folder: .*set/images"),
        (["a.jpg"], [], r"expected label maps \*\.png in this folder: .*set/labels"),
        (["a.jpg"], ["a.tif"], r"expected label maps \*\.png in this folder: .*set/labels"),
        (
            ["a.jpg"],
            ["b.png"],
            r"expected label maps named like the images, such as a, in this",
        ),
    ],
)
def test_missing_files_say_what_where_and_how(
    images: list[str], labels: list[str], message: str, tmp_path: Path
) -> None:
    make(tmp_path, images, labels)
    with pytest.raises(FileNotFoundError, match=message) as error:
        DATASET.load(tmp_path)
    assert "dataset test_semantic consists of" in str(error.value)
    assert "DETECTRON2_DATASETS is" in str(error.value)
    assert "How to prepare it: run the script" in str(error.value)
