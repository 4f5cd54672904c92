"""Semantic labels derived from panoptic annotation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.semantic_maps import (
    LabelValues,
    SemanticLabels,
    check_label_range,
    read_semantic_labels,
    semantic_from_panoptic,
)
from maskclippp.files.images import read_panoptic_ids
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.real_samples import recorded_semantic_maps, sample_records


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    root = make_coco_panoptic(tmp_path)
    return coco_panoptic("val").load(root)


def test_every_segment_is_painted_with_its_class(records: list[dict[str, Any]]) -> None:
    for record in records:
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        labels, _ = read_semantic_labels(record, ignore_label=255)
        for segment in record["segments_info"]:
            assert (labels[ids == segment["id"]] == segment["category_id"]).all()
        assert (labels[ids == 0] == 255).all()
        assert sorted(np.unique(labels)) == [0, 16, 102, 125, 255]


def plain_conversion(record: dict[str, Any]) -> np.ndarray:
    """The label map once more, segment by segment from the colors of the panoptic PNG."""
    colors = np.array(Image.open(record["pan_seg_file_name"]))
    labels = np.full(colors.shape[:2], 255, dtype=np.uint8)
    for segment in record["segments_info"]:
        identity = segment["id"]
        color = [identity % 256, identity // 256 % 256, identity // 65536]
        labels[(colors == color).all(axis=2)] = segment["category_id"]
    return labels


def drawn_conversions(root: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    drawn = coco_panoptic("val").load(make_coco_panoptic(root))
    return [(record, plain_conversion(record)) for record in drawn]


def recorded_conversions(root: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    by_name = {Path(record["pan_seg_file_name"]).name: record for record in sample_records()}
    return [(by_name[file.name], np.array(Image.open(file))) for file in recorded_semantic_maps()]


@pytest.mark.parametrize(
    "conversions",
    [drawn_conversions, *([recorded_conversions] if recorded_semantic_maps() else [])],
)
def test_conversion_gives_the_expected_maps(
    conversions: Callable[[Path], list[tuple[dict[str, Any], np.ndarray]]], tmp_path: Path
) -> None:
    found = conversions(tmp_path)
    assert found
    for record, expected in found:
        labels, source = read_semantic_labels(record, ignore_label=255)
        assert (labels == expected).all()
        assert source == record["pan_seg_file_name"]


def test_unlisted_and_unlabeled_pixels_are_ignored() -> None:
    ids = np.array([[0, 5, 9]], dtype=np.int32)
    assert semantic_from_panoptic(ids, [{"id": 5, "category_id": 2}], 7).tolist() == [[7, 2, 7]]
    assert semantic_from_panoptic(ids, [], 7).tolist() == [[7, 7, 7]]


def test_label_file_is_preferred_when_it_is_there(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    Image.fromarray(np.full((2, 2), 3, dtype=np.uint8)).save(tmp_path / "labels.png")
    record = {**records[0], "sem_seg_file_name": str(tmp_path / "labels.png")}
    labels, source = read_semantic_labels(record, 255)
    assert (labels == 3).all()
    assert source == str(tmp_path / "labels.png")


def test_missing_label_file_without_panoptic_annotation_is_named() -> None:
    record = {"file_name": "a.jpg", "sem_seg_file_name": "b.png"}
    with pytest.raises(FileNotFoundError, match=r"b\.png of image a\.jpg .*datasets/README\.md"):
        read_semantic_labels(record, 255)


def test_record_without_annotation_is_named() -> None:
    with pytest.raises(ValueError, match=r"a\.jpg names neither"):
        read_semantic_labels({"file_name": "a.jpg"}, 255)


@pytest.mark.parametrize("value", [-1, 3, 254])
def test_label_that_is_no_class_names_file_value_and_range(value: int) -> None:
    semantic = SemanticLabels(np.array([[0, 2, value, 255]], dtype=np.int32), "labels.png")
    with pytest.raises(
        ValueError, match=rf"labels\.png: pixel value {value} .*world allows 0\.\.2 "
    ):
        check_label_range(semantic, num_classes=3, ignore_label=255, dataset_name="world")


def test_ignore_label_may_lie_anywhere() -> None:
    for ignore_label in (3, 255, 65535):
        semantic = SemanticLabels(np.array([[0, 2, ignore_label]], dtype=np.int32), "labels.png")
        check_label_range(semantic, num_classes=3, ignore_label=ignore_label, dataset_name="world")


def test_values_of_classes_may_come_in_any_order() -> None:
    labels = np.array([[5, 2], [9, 0]], dtype=np.int32)
    found = LabelValues((5, 2, 9), ignored=0).positions(labels, 255, "labels.png")
    assert found.tolist() == [[0, 1], [2, 255]]
