"""The scripts for ADE20K make what the originals say, pixel by pixel."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskclippp.files.images import read_image
from maskclippp.words import load_class_list
from preparation.ade20k import read_instances, thing_categories
from preparation.ade20k_index import read_image_paths
from tests.data.original_layouts import (
    ADE_FOLDERS,
    FULL_SIZES,
    SIZES,
    STEMS,
    make_ade20k,
    make_ade20k_full,
    save,
)
from tests.data.preparation_runs import pixels, run_main, run_process, segment_ids

PERSON, FLAG, SKY = 12, 149, 2
NAMES = [(split, f"ADE_{split}_0000000{stem}") for split in STEMS for stem in STEMS[split]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the 150 classes, prepared by all three scripts."""
    root = tmp_path_factory.mktemp("ade20k")
    make_ade20k(root)
    run_process("prepare_ade20k_pan_seg", root)
    for kind in ("sem", "ins"):
        assert run_main(f"prepare_ade20k_{kind}_seg", root, workers=2) == 0
    return root / "ADEChallengeData2016"


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_things_are_numbered_as_the_instance_benchmark_does() -> None:
    """Its categoryMapping.txt: 1 -> 8, 2 -> 9, 3 -> 11, 4 -> 13, ..., 99 -> 149, 100 -> 150."""
    things = thing_categories()
    assert len(things) == 100
    assert things == sorted(things)
    assert [things[i] + 1 for i in (0, 1, 2, 3, 4, 5, 6, 49, 98, 99)] == [
        *(8, 9, 11, 13, 15, 16, 19, 81, 149, 150)
    ]


@pytest.mark.parametrize(("split", "name"), NAMES)
def test_semantic_maps_are_lowered_by_one(scenes: Path, split: str, name: str) -> None:
    file = Path(ADE_FOLDERS[split]) / f"{name}.png"
    original = pixels(scenes / "annotations" / file)
    made = pixels(scenes / "annotations_detectron2" / file)
    assert (made == (original - 1) % 256).all()
    assert 255 in made
    assert 149 in made


@pytest.mark.parametrize("split", STEMS)
def test_instances_are_those_of_the_picture(scenes: Path, split: str) -> None:
    made = content(scenes / f"ade20k_instance_{split}.json")
    names = [name for in_split, name in NAMES if in_split == split]
    assert [image["id"] for image in made["images"]] == names
    assert [image["file_name"] for image in made["images"]] == [f"{name}.jpg" for name in names]
    sizes = [(image["height"], image["width"]) for image in made["images"]]
    assert sizes == [SIZES[stem] for stem in STEMS[split]]
    assert [entry["id"] for entry in made["annotations"]] == list(range(1, 3 * len(names) + 1))
    for name in names:
        colors = pixels(scenes / "annotations_instance" / ADE_FOLDERS[split] / f"{name}.png")
        entries = [entry for entry in made["annotations"] if entry["image_id"] == name]
        assert [entry["category_id"] for entry in entries] == [PERSON, FLAG, PERSON]
        for number, entry in zip((1, 2, 9), entries, strict=True):
            mask = colors[..., 1] == number
            assert (coco_mask.decode(entry["segmentation"]) == mask).all()
            assert entry["area"] == mask.sum()
            assert entry["iscrowd"] == 0
        assert [entry["bbox"] for entry in entries] == [
            [0, 16, 4, 3],
            [3, 12, 7, 4],
            [1, 1, 8, 6],
        ]


def test_instance_categories_are_the_things_under_scene_ids(scenes: Path) -> None:
    categories = content(scenes / "ade20k_instance_val.json")["categories"]
    assert [category["id"] for category in categories] == thing_categories()
    assert categories[-1]["name"] == "flag"


@pytest.mark.parametrize(("split", "name"), NAMES)
def test_things_are_painted_over_stuff_and_cover_what_is_no_instance_with_void(
    scenes: Path, split: str, name: str
) -> None:
    file = f"{name}.png"
    labels = pixels(scenes / "annotations" / ADE_FOLDERS[split] / file)
    colors = pixels(scenes / "annotations_instance" / ADE_FOLDERS[split] / file)
    is_thing = list(load_class_list("ade20k_150").is_thing)
    ids = segment_ids(scenes / f"ade20k_panoptic_{split}" / file)
    made = content(scenes / f"ade20k_panoptic_{split}.json")
    annotation = next(entry for entry in made["annotations"] if entry["image_id"] == name)
    assert annotation["file_name"] == file
    category_of = {entry["id"]: entry["category_id"] for entry in annotation["segments_info"]}
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            thing, number, _ = colors[row, column]
            label = labels[row, column]
            identity = ids[row, column]
            if number:
                assert category_of[identity] == thing_categories()[thing - 1]
                assert identity % 1000 == number
            elif label == 0 or is_thing[label - 1]:
                assert identity == 0
            else:
                assert category_of[identity] == label - 1


def test_stuff_under_things_is_listed_with_its_whole_area_as_published(scenes: Path) -> None:
    annotation = content(scenes / "ade20k_panoptic_val.json")["annotations"][0]
    sky = next(s for s in annotation["segments_info"] if s["category_id"] == SKY)
    assert (sky["area"], sky["bbox"], sky["iscrowd"]) == (12, [2, 2, 4, 3], 0)
    ids = segment_ids(scenes / "ade20k_panoptic_val" / annotation["file_name"])
    assert sky["id"] not in ids


def test_panoptic_categories_are_all_classes(scenes: Path) -> None:
    made = content(scenes / "ade20k_panoptic_val.json")
    assert [category["id"] for category in made["categories"]] == list(range(150))
    assert sum(category["isthing"] for category in made["categories"]) == 100


def test_value_that_is_no_class_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_ade20k(tmp_path)
    file = tmp_path / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000002.png"
    save(file, np.full((24, 18), 151, np.uint8))
    assert run_main("prepare_ade20k_sem_seg", tmp_path) == 1
    assert f"{file}: value 151 is not a class (invalid values at 432 pixels)" in caplog.text


@pytest.mark.parametrize(
    ("colors", "found"), [([(4, 1, 0), (5, 1, 0)], r"\[4, 5\]"), ([(101, 1, 0)] * 2, r"\[101\]")]
)
def test_instance_must_have_one_class_that_is_a_thing(
    colors: list[tuple[int, int, int]], found: str, tmp_path: Path
) -> None:
    save(tmp_path / "a.png", np.array([colors], np.uint8))
    with pytest.raises(ValueError, match=rf"a\.png: instance 1 has the classes {found}"):
        read_instances(tmp_path / "a.png")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ade20k_full")
    make_ade20k_full(root)
    run_process("prepare_ade20k_full_sem_seg", root)
    return root / "ADE20K_2021_17_01"


@pytest.mark.parametrize(("split", "name"), NAMES)
def test_full_classes_are_found_by_their_number(full: Path, split: str, name: str) -> None:
    """Wall is class 0, building 1, car 14, adding machine 846; nothing else is a class."""
    folder = full / "images" / "ADE" / ADE_FOLDERS[split] / "urban" / "street"
    colors = pixels(folder / f"{name}_seg.png")
    numbers = colors[..., 0] // 10 * 256 + colors[..., 1]
    expected = np.full(numbers.shape, 65535)
    for number, index in {2978: 0, 312: 1, 401: 14, 3148: 846}.items():
        expected[numbers == number] = index
    made = pixels(full / "annotations_detectron2" / ADE_FOLDERS[split] / f"{name}.tif")
    image = read_image(full / "images_detectron2" / ADE_FOLDERS[split] / f"{name}.jpg")
    assert made.shape == (image.height, image.width)
    if made.shape == expected.shape:
        assert (made == expected).all()
    else:
        scale = expected.shape[0] / made.shape[0], expected.shape[1] / made.shape[1]
        rows, columns = (np.arange(n) * s for n, s in zip(made.shape, scale, strict=True))
        nearest = expected[rows.astype(int)[:, None], columns.astype(int)]
        assert (made == nearest).all()


def test_only_images_with_both_sides_above_512_shrink(full: Path) -> None:
    sizes = {
        stem: read_image(next((full / "images_detectron2").rglob(f"*{stem}.jpg"))).size[::-1]
        for stem in FULL_SIZES
    }
    assert sizes == {"1": (20, 30), "2": (512, 768), "3": (600, 100)}


def test_shrunken_photograph_shows_the_same(full: Path) -> None:
    stem = "ADE_val_00000002.jpg"
    original = read_image(full / "images" / "ADE" / "validation" / "urban" / "street" / stem)
    made = read_image(full / "images_detectron2" / "validation" / stem)
    small, expected = (np.asarray(i.resize((16, 16)), float) for i in (made, original))
    assert abs(small - expected).max() < 12


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, lambda names: np.array(names, dtype=object)]
)
def test_index_may_hold_lists_or_arrays_of_names(kind: Any, protocol: int, tmp_path: Path) -> None:
    index = {"filename": kind(["a.jpg", "bé.jpg"]), "folder": kind(["x/y", "z"]), "n": np.ones(3)}
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(index, protocol))
    assert read_image_paths(tmp_path / "index.pkl") == [Path("x/y/a.jpg"), Path("z/bé.jpg")]


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("code_was_run",)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"filename": Hostile()}, "asks for .*mkdir"),
        ({"filename": np.array([Hostile()])}, "asks for .*mkdir"),
        ({"filename": ["a.jpg"]}, "no list 'folder'"),
        ({"filename": [1], "folder": ["x"]}, "no list 'filename'"),
        ({"filename": ["a", "b"], "folder": ["x"]}, "1 folders and 2 files"),
        (["a.jpg"], "no list 'folder'"),
    ],
)
def test_other_pickles_are_refused_and_never_run(
    index: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "index_ade20k.pkl"
    file.write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=rf"index_ade20k\.pkl .*{reason}"):
        read_image_paths(file)
    assert list(tmp_path.iterdir()) == [file]
