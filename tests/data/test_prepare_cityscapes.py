"""The script for Cityscapes makes what cityscapesscripts' own tools would."""

import json
from pathlib import Path

import numpy as np
import pytest

from maskclippp.words import load_class_list
from tests.data.original_layouts import SIZES, STEMS, make_cityscapes
from tests.data.preparation_runs import load_script, pixels, run_process, segment_ids

IMAGES = [(split, stem) for split in STEMS for stem in STEMS[split]]
TRAIN_IDS = {3: 255, 7: 0, 23: 10, 26: 13, 29: 255}


@pytest.fixture(scope="module")
def ground_truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cityscapes")
    make_cityscapes(root)
    run_process("prepare_cityscapes_panoptic", root)
    return root / "cityscapes" / "gtFine"


def prefix(stem: str) -> str:
    return f"city{stem}_00000{stem}_000019_gtFine"


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_label_ids_become_train_ids(ground_truth: Path, split: str, stem: str) -> None:
    folder = ground_truth / split / f"city{stem}"
    original = pixels(folder / f"{prefix(stem)}_labelIds.png")
    made = pixels(folder / f"{prefix(stem)}_labelTrainIds.png")
    assert (made == np.vectorize(TRAIN_IDS.get)(original)).all()


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_segments_are_the_original_instance_ids(ground_truth: Path, split: str, stem: str) -> None:
    original = pixels(ground_truth / split / f"city{stem}" / f"{prefix(stem)}_instanceIds.png")
    expected = np.where((original == 3) | (original == 29_000), 0, original)
    made = ground_truth / f"cityscapes_panoptic_{split}" / f"{prefix(stem)}_panoptic.png"
    assert (segment_ids(made) == expected).all()


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_json_lists_classes_areas_boxes_and_crowds(
    ground_truth: Path, split: str, stem: str
) -> None:
    made = json.loads((ground_truth / f"cityscapes_panoptic_{split}.json").read_text())
    image_id = prefix(stem).removesuffix("_gtFine")
    image = next(entry for entry in made["images"] if entry["id"] == image_id)
    assert (image["height"], image["width"]) == SIZES[stem]
    annotation = next(entry for entry in made["annotations"] if entry["image_id"] == image_id)
    assert annotation["file_name"] == f"{prefix(stem)}_panoptic.png"
    segments = {segment["id"]: segment for segment in annotation["segments_info"]}
    ids = pixels(ground_truth / split / f"city{stem}" / f"{prefix(stem)}_instanceIds.png")
    assert sorted(segments) == [7, 23, 26, 26_000, 26_011]
    assert [segments[i]["category_id"] for i in sorted(segments)] == [7, 23, 26, 26, 26]
    assert [segments[i]["iscrowd"] for i in sorted(segments)] == [0, 0, 1, 0, 0]
    assert all(segments[i]["area"] == (ids == i).sum() for i in segments)
    assert segments[26_011]["bbox"] == [1, 10, 7, 3]


def test_classes_are_those_of_the_registered_dataset() -> None:
    classes = load_class_list("cityscapes_19")
    script = load_script("prepare_cityscapes_panoptic")
    assert tuple(script.CLASSES) == classes.ids
    assert tuple(label >= script.FIRST_THING for label in script.CLASSES) == classes.is_thing
