"""Instance datasets: records of COCO and LVIS JSON files, and errors that name what is wrong."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode
from pycocotools import mask as mask_codec

from maskclippp.data.instances import InstanceDataset
from maskclippp.words import Vocabulary
from tests.data.registered_layouts import HEIGHT, WIDTH, Instances, make_instances

IDS = (2, 5, 9)
LAYOUT = Instances("images/part/a.jpg", "instances.json", len(IDS))
DATASET = InstanceDataset(
    name="test_instances",
    images="images/part",
    annotations=LAYOUT.json,
    words=Vocabulary(
        (*((f"thing {category}",) for category in IDS), ("stuff",)),
        ids=(*IDS, 1),
        is_thing=(*(True for _ in IDS), False),
        colors=(*((1, 2, 3) for _ in IDS), (4, 5, 6)),
    ),
    preparation="run the script",
)


def load(root: Path) -> list[dict[str, Any]]:
    return DATASET.load(root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_instances(tmp_path, LAYOUT, IDS)
    return tmp_path


def edit(root: Path, key: str, *entries: dict[str, Any]) -> None:
    """Append entries to a list of the JSON."""
    content = json.loads((root / LAYOUT.json).read_text())
    content[key] += entries
    (root / LAYOUT.json).write_text(json.dumps(content))


def annotation(**changes: Any) -> dict[str, Any]:
    polygon = [0, 0, 9, 0, 9, 9]
    base = {"image_id": 12, "category_id": 2, "bbox": [0, 0, 9, 9], "segmentation": [polygon]}
    return {**base, **changes}


def test_things_alone_are_classes_and_records_hold_their_positions(root: Path) -> None:
    (record,) = load(root)
    assert [a["category_id"] for a in record["annotations"]] == [0, 2]
    assert {a["bbox_mode"] for a in record["annotations"]} == {BoxMode.XYWH_ABS}


def test_crowd_is_compressed_run_length_code(root: Path) -> None:
    (record,) = load(root)
    crowd = mask_codec.decode(record["annotations"][1]["segmentation"])
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, 10:15] = 1
    np.testing.assert_array_equal(crowd, expected)


def test_lvis_finds_images_by_their_url(tmp_path: Path) -> None:
    layout = Instances("coco/val2017/a.jpg", "lvis.json", len(IDS), "lvis")
    make_instances(tmp_path, layout, IDS)
    dataset = InstanceDataset(
        name="test_lvis",
        images="coco",
        annotations=layout.json,
        words=DATASET.words,
        preparation="",
        evaluator="lvis",
    )
    (record,) = dataset.load(tmp_path)
    assert record["file_name"] == str(tmp_path / layout.image)
    assert record["neg_category_ids"] == [3]
    assert record["not_exhaustive_category_ids"] == []


def test_objects_without_outline_are_left_out_with_a_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line, triangle = [0, 0, 9, 9], [0, 0, 9, 0, 9, 9]
    edit(
        root,
        "annotations",
        annotation(segmentation=[line]),
        annotation(segmentation=[]),
        annotation(segmentation=[line, triangle]),
    )
    with caplog.at_level(logging.WARNING):
        (record,) = load(root)
    assert [a["segmentation"] for a in record["annotations"]][2:] == [[triangle]]
    assert "2 objects without any polygon of at least 3 points" in caplog.text


def test_images_without_objects_stay(root: Path) -> None:
    image = {"id": 13, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}
    edit(root, "images", image)
    assert load(root)[1]["annotations"] == []


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        ("categories", {"id": 7, "name": "ghost"}, r"1 categories are not among .*: 7 \(ghost\)"),
        (
            "annotations",
            annotation(image_id=99),
            r"annotations\[2\]\.image_id must be an id of images, found 99",
        ),
        (
            "annotations",
            annotation(category_id=1),
            r"annotations\[2\]\.category_id must be an id of categories, found 1",
        ),
        ("annotations", {"image_id": 12}, r"annotations\[2\] lacks category_id, bbox"),
        ("images", {"id": 13}, r"images\[1\] lacks height, width, file_name"),
    ],
)
def test_mismatch_names_file_and_entry(
    key: str, entry: dict[str, Any], message: str, root: Path
) -> None:
    edit(root, key, entry)
    with pytest.raises(ValueError, match=message) as error:
        load(root)
    assert LAYOUT.json in str(error.value)


@pytest.mark.parametrize("missing", [LAYOUT.json, LAYOUT.image])
def test_missing_files_say_what_where_and_how(missing: str, root: Path) -> None:
    (root / missing).unlink()
    with pytest.raises(FileNotFoundError) as error:
        load(root)
    assert str(root / missing) in str(error.value)
    assert "dataset test_instances consists of" in str(error.value)
    assert "How to prepare it: run the script" in str(error.value)


def test_missing_images_may_be_tolerated(root: Path) -> None:
    (root / LAYOUT.image).unlink()
    assert len(DATASET.load(root, check_files=False)) == 1


def test_a_file_without_images_is_named(root: Path) -> None:
    content = json.loads((root / LAYOUT.json).read_text())
    (root / LAYOUT.json).write_text(json.dumps({**content, "images": [], "annotations": []}))
    with pytest.raises(FileNotFoundError, match=r"expected at least one image: .*\.json\n"):
        load(root)
