"""Semantic labels derived from panoptic annotation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskclippp.data.coco_panoptic import coco_panoptic
from maskclippp.data.files import read_panoptic_ids
from maskclippp.data.panoptic import load_panoptic_records
from maskclippp.data.semantic_maps import read_semantic_labels, semantic_from_panoptic
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.real_samples import recorded_semantic_maps, sample_records


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    root = make_coco_panoptic(tmp_path)
    return load_panoptic_records(coco_panoptic("val"), root, check_files=True)


def test_every_segment_is_painted_with_its_class(records: list[dict[str, Any]]) -> None:
    for record in records:
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        labels = read_semantic_labels(record, ignore_label=255)
        for segment in record["segments_info"]:
            assert (labels[ids == segment["id"]] == segment["category_id"]).all()
        assert (labels[ids == 0] == 255).all()
        assert sorted(np.unique(labels)) == [0, 16, 102, 125, 255]


def test_recorded_conversion_of_the_real_images() -> None:
    expected = recorded_semantic_maps()
    records = sample_records() if expected else []
    by_name = {Path(record["pan_seg_file_name"]).name: record for record in records}
    for file in expected:
        labels = read_semantic_labels(by_name[file.name], ignore_label=255)
        assert (labels == np.array(Image.open(file))).all()


def test_unlisted_and_unlabelled_pixels_are_ignored() -> None:
    ids = np.array([[0, 5, 9]], dtype=np.int32)
    assert semantic_from_panoptic(ids, [{"id": 5, "category_id": 2}], 7).tolist() == [[7, 2, 7]]
    assert semantic_from_panoptic(ids, [], 7).tolist() == [[7, 7, 7]]


def test_label_file_is_preferred_when_it_is_there(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    Image.fromarray(np.full((2, 2), 3, dtype=np.uint8)).save(tmp_path / "labels.png")
    record = {**records[0], "sem_seg_file_name": str(tmp_path / "labels.png")}
    assert (read_semantic_labels(record, 255) == 3).all()


def test_missing_label_file_without_panoptic_annotation_is_named() -> None:
    record = {"file_name": "a.jpg", "sem_seg_file_name": "b.png"}
    with pytest.raises(FileNotFoundError, match=r"b\.png of image a\.jpg .*datasets/README\.md"):
        read_semantic_labels(record, 255)


def test_record_without_annotation_is_named() -> None:
    with pytest.raises(ValueError, match=r"a\.jpg names neither"):
        read_semantic_labels({"file_name": "a.jpg"}, 255)
