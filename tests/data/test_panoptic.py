"""Registration of datasets in COCO's panoptic format."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import maskclippp.data  # noqa: F401  (registers)
from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.panoptic import (
    PanopticDataset,
    category_id_shift,
)
from tests.data.panoptic_scene import SIZES, make_coco_panoptic
from tests.golden_cases import REPOSITORY

NAMES = [f"openvocab_coco_2017_{split}_panoptic_with_sem_seg" for split in ("train", "val")]
DATASET = replace(coco_panoptic("val"), name="test_registration")


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[Path]:
    DATASET.register(make_coco_panoptic(tmp_path))
    yield tmp_path
    DatasetCatalog.remove(DATASET.name)
    MetadataCatalog.remove(DATASET.name)


@pytest.mark.parametrize("name", NAMES)
def test_importing_the_package_registers_coco(name: str) -> None:
    assert name in DatasetCatalog.list()
    metadata = MetadataCatalog.get(name)
    assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == 133
    assert len(metadata.thing_classes) == len(metadata.thing_colors) == 80
    assert metadata.thing_dataset_id_to_contiguous_id[90] == 79
    assert metadata.stuff_dataset_id_to_contiguous_id[90] == 79  # "stuff" holds all classes
    assert metadata.stuff_dataset_id_to_contiguous_id[200] == 132
    assert 200 not in metadata.thing_dataset_id_to_contiguous_id
    assert metadata.ignore_label == 255
    assert metadata.evaluator_type == "coco_panoptic_seg"


def test_records_have_contiguous_classes_and_all_files(registered: Path) -> None:
    records = DatasetCatalog.get(DATASET.name)
    assert [record["image_id"] for record in records] == list(SIZES)
    for record in records:
        assert (record["height"], record["width"]) == SIZES[record["image_id"]]
        assert Path(record["file_name"]).is_file()
        assert Path(record["pan_seg_file_name"]).is_file()
        assert Path(record["sem_seg_file_name"]).parent.name == "panoptic_semseg_val2017"
        found = [(s["category_id"], s["isthing"], s["iscrowd"]) for s in record["segments_info"]]
        assert found == [
            (125, False, 0),
            (102, False, 0),
            (0, True, 0),
            (16, True, 0),
            (0, True, 1),
        ]


def test_size_is_left_out_when_the_json_has_none(registered: Path) -> None:
    file = registered / DATASET.annotations
    content = json.loads(file.read_text())
    content["images"] = [{"id": image["id"]} for image in content["images"]]
    file.write_text(json.dumps(content))
    assert "height" not in DatasetCatalog.get(DATASET.name)[0]


@pytest.mark.parametrize("missing", ["annotations", "images", "panoptic_maps"])
def test_missing_data_says_what_where_and_how(missing: str, registered: Path) -> None:
    path = registered / getattr(DATASET, missing)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(DATASET.name)
    message = str(error.value)
    assert DATASET.name in message
    assert str(path) in message
    assert "DETECTRON2_DATASETS is" in message
    assert "prepare_coco_semantic_annos_from_panoptic_annos.py" in message


def test_missing_images_are_counted_and_the_first_ten_named(registered: Path) -> None:
    content = json.loads((registered / DATASET.annotations).read_text())
    (annotation, *_) = content["annotations"]
    absent = [
        {**annotation, "image_id": 100 + index, "file_name": f"absent_{index:02d}.png"}
        for index in range(12)
    ]
    dataset = edited(
        registered,
        annotations=[*content["annotations"], *absent],
        images=[*content["images"], *({"id": a["image_id"]} for a in absent)],
    )
    with pytest.raises(FileNotFoundError) as error:
        dataset.load(registered)
    message = str(error.value)
    assert f"12 of {len(SIZES) + 12} images do not exist" in message
    assert "absent_09.jpg" in message
    assert "absent_10.jpg" not in message
    assert "and 2 more" in message
    assert len(dataset.load(registered, check_files=False)) == len(SIZES) + 12


@pytest.mark.parametrize(
    ("found", "expected", "shift"),
    [
        ([1, 2, 3], [1, 2, 3], 0),
        ([0, 1, 2], [1, 2, 3], 1),
        ([1, 2, 3], [0, 1, 2], -1),
        ([0, 1], [1, 2, 3], 0),  # not all of them: their numbers say nothing
        ([1, 2, 4], [1, 2, 3], 0),
    ],
)
def test_shift_of_category_ids(found: list[int], expected: list[int], shift: int) -> None:
    assert category_id_shift(found, expected) == shift


def edited(root: Path, **changes: object) -> PanopticDataset:
    file = root / DATASET.annotations
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps(content))
    return DATASET


def categories_of(root: Path) -> list[dict[str, object]]:
    content = json.loads((root / DATASET.annotations).read_text())
    return list(content["categories"])


def test_unknown_category_is_named(registered: Path) -> None:
    categories = [*categories_of(registered), {"id": 666, "name": "ghost", "isthing": 1}]
    with pytest.raises(ValueError, match=r"1 categories are not among the 133 .*: 666 \(ghost\)"):
        edited(registered, categories=categories).load(registered)


def test_thing_that_should_be_stuff_is_named(registered: Path) -> None:
    categories = [*categories_of(registered)[:-1], {"id": 200, "name": "rug", "isthing": 1}]
    with pytest.raises(ValueError, match=r"category 200 \(rug\) has isthing 1"):
        edited(registered, categories=categories).load(registered)


def test_empty_annotation_is_refused(registered: Path) -> None:
    with pytest.raises(FileNotFoundError, match="at least one annotation"):
        edited(registered, annotations=[]).load(registered)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}'])
def test_malformed_json_is_named(text: str, registered: Path) -> None:
    (registered / DATASET.annotations).write_text(text)
    with pytest.raises(
        ValueError, match=r"panoptic_val2017\.json(:| cannot be read:) .*; it is needed as"
    ):
        DATASET.load(registered)


SEGMENT = {"id": 1, "category_id": 1, "area": 1, "iscrowd": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments_info": None}, r": annotations\[1\]\.segments_info must be a list, found null"),
        ({"segments_info": [None]}, r": .*\[1\]\.segments_info\[0\] must be an object, found null"),
        ({"segments_info": [{"id": 3}]}, r": .*\[1\]\.segments_info\[0\] lacks category_id"),
        (
            {"segments_info": [SEGMENT, {**SEGMENT, "id": 5, "category_id": 666}]},
            r", image 12 \(b\.png\): segment 5 has category 666, .* register the dataset",
        ),
    ],
)
def test_broken_segments_name_file_and_image(
    changes: dict[str, object], message: str, registered: Path
) -> None:
    whole = {"image_id": 7, "file_name": "a.png", "segments_info": [SEGMENT]}
    broken = {"image_id": 12, "file_name": "b.png", "segments_info": [SEGMENT], **changes}
    dataset = edited(registered, annotations=[whole, broken])
    with pytest.raises(ValueError, match=r"panoptic_val2017\.json" + message):
        dataset.load(registered)


@pytest.mark.parametrize("key", ["segments_info", "image_id", "file_name"])
def test_annotation_that_lacks_a_key_is_named(key: str, registered: Path) -> None:
    annotation = {"image_id": 7, "file_name": "a.png", "segments_info": [SEGMENT]}
    del annotation[key]
    with pytest.raises(ValueError, match=rf"val2017\.json: annotations\[0\] lacks {key}"):
        edited(registered, annotations=[annotation]).load(registered)


def test_root_comes_from_the_environment_in_any_folder(registered: Path, tmp_path: Path) -> None:
    """The variable may be relative; a later change of the working directory does not matter."""
    script = (
        "import os, maskclippp.data\n"
        "from detectron2.data import DatasetCatalog\n"
        "os.chdir('/')\n"
        f"print(len(DatasetCatalog.get('{NAMES[1]}')))\n"
    )
    search_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=registered.parent,
        env={**os.environ, "DETECTRON2_DATASETS": registered.name, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == str(len(SIZES))
