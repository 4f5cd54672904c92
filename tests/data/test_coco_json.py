"""Annotation that is wrong in an entry is refused: file, entry, key, expected and found."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskclippp.data.coco_json import read_instances, read_panoptic
from maskclippp.errors import InputError
from maskclippp.masks.run_length import encode_mask

SQUARE = [2, 2, 12, 2, 12, 12, 2, 12]
SIZE = [20, 30]


def panoptic() -> dict[str, Any]:
    segments = [{"id": i, "category_id": i, "area": 300, "iscrowd": 0} for i in (1, 2)]
    return {
        "images": [{"id": k, "file_name": f"{k}.jpg", "height": 20, "width": 30} for k in (7, 8)],
        "annotations": [
            {"image_id": k, "file_name": f"{k}.png", "segments_info": copy.deepcopy(segments)}
            for k in (7, 8)
        ],
        "categories": [{"id": i, "name": f"class {i}", "isthing": i - 1} for i in (1, 2)],
    }


def instances() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "7.jpg", "height": 20, "width": 30}],
        "annotations": [
            {
                "id": number,
                "image_id": 7,
                "category_id": 5,
                "bbox": [2, 2, 10, 10],
                "area": 100,
                "segmentation": segmentation,
            }
            for number, segmentation in enumerate(
                (
                    [SQUARE],
                    {"size": SIZE, "counts": [42, 10, 548]},
                    encode_mask(np.eye(20, 30, dtype=np.bool_)),
                )
            )
        ],
        "categories": [
            {"id": 0, "name": "things", "supercategory": "none"},
            {"id": 5, "name": "cat", "supercategory": "things"},
        ],
    }


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The content with another value at a place such as ``annotations.0.image_id``."""
    *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    entry: Any = content
    for step in steps:
        entry = entry[step]
    if value is ...:
        del entry[last]
    else:
        entry[last] = value
    return content


S = "annotations.0.segments_info.1"
SHOWN = "annotations[0].segments_info[1]"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (f"{S}.id", "2", f'{SHOWN}.id must be a whole number, found "2"'),
        (f"{S}.id", 2.5, f"{SHOWN}.id must be a whole number, found 2.5"),
        (f"{S}.id", True, f"{SHOWN}.id must be a whole number, found true"),
        (f"{S}.id", 0, f"{SHOWN}.id must be a whole number >= 1, found 0"),
        (f"{S}.id", 256**3, f"{SHOWN}.id must be a whole number <= 16777215, found 16777216"),
        (f"{S}.id", 1, f"{SHOWN}.id must be unique, found 1"),
        (f"{S}.iscrowd", {}, f"{SHOWN}.iscrowd must be a whole number, found {{}}"),
        (f"{S}.iscrowd", 2, f"{SHOWN}.iscrowd must be a whole number <= 1, found 2"),
        (f"{S}.category_id", [2], f"{SHOWN}.category_id must be a whole number, found [2]"),
        (f"{S}.category_id", 3, "segment 2 has category 3, which is not among the categories"),
        (f"{S}.area", None, f"{SHOWN}.area must be a whole number or a number, found null"),
        (f"{S}.area", -5, f"{SHOWN}.area must be"),
        (f"{S}.area", ..., f"{SHOWN} lacks area"),
        ("annotations.1.image_id", 7, "annotations[1].image_id must be unique, found 7"),
        (
            "annotations.1.image_id",
            "8",
            "must be an id of images, found '8' (8 is of another type)",
        ),
        ("annotations.1.image_id", {}, "annotations[1].image_id must be a whole number or a text"),
        ("annotations.1.file_name", "7.png", "annotations[1].file_name must be unique"),
        ("annotations.1.file_name", "../8.png", "must be a path below the folder of the dataset"),
        ("images.0.file_name", None, "images[0].file_name must be a text, found null"),
        ("images.0.file_name", "/x.jpg", "images[0].file_name must be a path below the folder"),
        ("images.0.file_name", "x\0.jpg", "images[0].file_name must be a path below the folder"),
        (
            "images.1.id",
            7,
            "images[1].id must be unique, found 7, which is also the id of images[0]",
        ),
        ("images.0.height", "20", 'images[0].height must be a whole number, found "20"'),
        ("images.0.width", 0, "images[0].width must be a whole number >= 1, found 0"),
        ("categories.0.isthing", "0", 'categories[0].isthing must be a whole number, found "0"'),
        ("categories.0.isthing", ..., "categories[0] lacks isthing"),
        ("categories.1.id", 1, "categories[1].id must be unique, found 1"),
        ("categories.0.name", None, "categories[0].name must be a text, found null"),
    ],
)
def test_wrong_panoptic_entries_are_named(
    place: str, value: Any, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "panoptic.json"
    file.write_text(json.dumps(changed(panoptic(), place, value)))
    with pytest.raises(InputError, match=rf"panoptic\.json.*{re.escape(message)}"):
        read_panoptic(file, "a test", with_areas=True)


A = "annotations.1"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (f"{A}.segmentation.counts", [42, 10], "must fill an image of 20 x 30"),
        (f"{A}.segmentation.counts", [42, 1000], "its runs add up to 1042 pixels"),
        (f"{A}.segmentation.counts", [-1, 601], "counts[0] must be a whole number >= 0, found -1"),
        (f"{A}.segmentation.counts", "", "it ends within a number"),
        (f"{A}.segmentation.counts", "zzz", "it ends within a number"),
        (f"{A}.segmentation.counts", "\u00e9", "it ends within a number"),
        (f"{A}.segmentation.counts", "11", "its runs add up to 2 pixels"),
        (f"{A}.segmentation.counts", "o" * 20 + "0", "it has no runs"),
        (f"{A}.segmentation.counts", None, "annotations[1].segmentation.counts must be"),
        (f"{A}.segmentation.counts", ..., "annotations[1].segmentation lacks counts"),
        (f"{A}.segmentation.size", [30, 20], "[20, 30] (height, width), found [30, 20]"),
        (f"{A}.segmentation.size", [20], "size must be a list of length >= 2, found [20]"),
        (f"{A}.segmentation", None, "segmentation must be an object or a list, found null"),
        (f"{A}.segmentation", SQUARE, "segmentation[0] must be a list, found 2"),
        (f"{A}.segmentation", [[*SQUARE, 1]], "polygons [x1, y1, x2, y2, ...], found one of 9"),
        (f"{A}.segmentation", [[None, *SQUARE[1:]]], "[0][0] must be a number, found null"),
        (f"{A}.segmentation", [["2", *SQUARE[1:]]], '[0][0] must be a number, found "2"'),
        (f"{A}.segmentation", [[1e300, *SQUARE[1:]]], "must be a number <= 1000000.0, found"),
        (f"{A}.category_id", 7, "annotations[1].category_id must be an id of categories, found 7"),
        (f"{A}.image_id", 8, "annotations[1].image_id must be an id of images, found 8"),
        (f"{A}.id", 0, "annotations[1].id must be unique, found 0"),
        (f"{A}.bbox", [1, 2, 3], "bbox must be a list of length >= 4, found [1, 2, 3]"),
        (f"{A}.bbox", [2, 2, 5, -1], "bbox must be [x, y, width, height] of a box, found [2.0, 2"),
        (f"{A}.bbox", [2, 2, -5, 1], "annotations[1].bbox must be [x, y, width, height]"),
        (f"{A}.iscrowd", "1", 'iscrowd must be a whole number, found "1"'),
        ("images.0.height", 2**16, "images[0].height must be a whole number <= 65535, found 65536"),
        ("images.0.id", 2**70, "images[0].id must be a whole number"),
        ("images", [], "annotations[0].image_id must be an id of images, found 7"),
        ("images.0.width", 31, "annotations[1].segmentation.size must be that of image 7"),
    ],
)
def test_wrong_instance_entries_are_named(
    place: str, value: Any, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(changed(instances(), place, value)))
    with pytest.raises(InputError, match=rf"instances\.json.*{re.escape(message)}"):
        read_instances(file, "a test")


def test_categories_may_be_numbered_by_hashes(tmp_path: Path) -> None:
    """As in exports of V7; other tools number them from 0."""
    content = changed(instances(), "categories.1.id", 4_000_000_000)
    for annotation in content["annotations"]:
        annotation["category_id"] = 4_000_000_000
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = read_instances(tmp_path / "a.json", "a test")
    assert [category["id"] for category in found["categories"]] == [4_000_000_000]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("images.0.file_name", "a..b.jpg"),
        ("images.0.file_name", "folder/..x/a.jpg"),
        ("images.0.height", ...),  # LVIS's codes have their own size
        ("annotations.0.segmentation", [[2, 2, 12, 2, 12, 12]]),
        ("annotations.0.segmentation", []),
        ("annotations.0.area", 99.5),
    ],
)
def test_unusual_entries_are_accepted(place: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(changed(instances(), place, value)))
    assert len(read_instances(file, "a test")["annotations"]) == 3


@pytest.mark.parametrize("top", ["none", "", None])
def test_the_empty_parent_of_all_categories_is_left_out(top: str | None, tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(changed(instances(), "categories.0.supercategory", top)))
    assert [c["id"] for c in read_instances(file, "a test")["categories"]] == [5]
    file.write_text(json.dumps(changed(instances(), "annotations.0.category_id", 0)))
    assert [c["id"] for c in read_instances(file, "a test")["categories"]] == [0, 5]


def test_annotation_of_the_other_kind_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(panoptic()))
    (tmp_path / "i.json").write_text(json.dumps(instances()))
    with pytest.raises(InputError, match=r"i\.json is instance annotation.* kind coco_instances"):
        read_panoptic(tmp_path / "i.json", "a test")
    with pytest.raises(InputError, match=r"p\.json is panoptic annotation.* kind coco_panoptic"):
        read_instances(tmp_path / "p.json", "a test")


def test_ids_of_images_are_of_one_type(tmp_path: Path) -> None:
    """Others have no order, in which results are computed."""
    content = changed(panoptic(), "images.1.id", "8")
    (tmp_path / "p.json").write_text(json.dumps(changed(content, "annotations.1.image_id", "8")))
    message = r"images\[1\]\.id must be of the type of the others, found '8', .* images\[0\] is 7"
    with pytest.raises(InputError, match=message):
        read_panoptic(tmp_path / "p.json", "a test")


def test_training_needs_no_areas(tmp_path: Path) -> None:
    file = tmp_path / "panoptic.json"
    file.write_text(json.dumps(changed(panoptic(), f"{S}.area", ...)))
    assert len(read_panoptic(file, "a test")["annotations"]) == 2
