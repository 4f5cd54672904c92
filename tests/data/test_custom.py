"""Datasets that a config describes: what is registered, and errors that say what to change."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.custom import register_custom_datasets
from maskclippp.data.mappers import EvaluationMapper, build_train_mapper
from maskclippp.evaluation.ground_truth import GroundTruth
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.registered_layouts import Instances, make_instances

NAME = "custom_for_tests"
HEIGHT, WIDTH = 20, 30


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two images with label values 7, 9 and 0, described relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images/sub", "labels/sub"):
        (tmp_path / folder).mkdir(parents=True)
    colors = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[5:10], labels[10:15] = 7, 9
    for name in ("a", "sub/b"):
        Image.fromarray(colors).save(tmp_path / "images" / f"{name}.jpeg")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "words.txt").write_text("7: dog, puppy\n9: grass")
    (tmp_path / "large.txt").write_text("7: dog\n65536: grass")
    return {
        "name": NAME,
        "kind": "index_png",
        "images": "images",
        "annotations": "labels",
        "words": "words.txt",
        "ignore": 0,
    }


@pytest.fixture
def panoptic_entry(tmp_path: Path) -> dict[str, Any]:
    coco = make_coco_panoptic(tmp_path) / "coco"
    return {
        "name": NAME,
        "kind": "coco_panoptic",
        "images": str(coco / "val2017"),
        "annotations": str(coco / "annotations" / "panoptic_val2017.json"),
        "panoptic_maps": str(coco / "panoptic_val2017"),
    }


def test_numbered_words_name_the_values_of_label_files(entry: dict[str, Any]) -> None:
    register_custom_datasets([entry])
    metadata = MetadataCatalog.get(NAME)
    assert metadata.stuff_classes == ["dog, puppy", "grass"]
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
    expected = np.full((HEIGHT, WIDTH), 255)
    expected[5:10], expected[10:15] = 0, 1
    records = DatasetCatalog.get(NAME)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    assert len(records) == 2
    for record in records:
        evaluated = EvaluationMapper(cfg, NAME, with_ground_truth=True)(record)
        assert (evaluated["sem_seg"].numpy() == expected).all()
        trained = build_train_mapper(cfg)(record)
        assert trained["instances"].gt_classes.tolist() == [0, 1]
        truth = GroundTruth(NAME).semantic_labels(record).labels
        assert (truth == np.where(expected == 255, 2, expected)).all()


def test_a_value_that_is_no_class_names_file_value_and_range(entry: dict[str, Any]) -> None:
    register_custom_datasets([{**entry, "ignore": 255}])
    message = r"a\.png: pixel value 0 .* 2 classes from 7 to 9, and 255 is the ignored value"
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get(NAME)


def test_unnumbered_words_count_from_zero(entry: dict[str, Any]) -> None:
    register_custom_datasets([{**entry, "words": ["sky", "dog"], "ignore": 255}])
    with pytest.raises(ValueError, match=r"a\.png: pixel value 7 .*allows 0\.\.1 and .* 255"):
        DatasetCatalog.get(NAME)


@pytest.mark.parametrize(("count", "ignore"), [(255, 255), (256, 65535), (300, 65535)])
def test_many_classes_keep_clear_of_the_ignore_label(
    count: int, ignore: int, entry: dict[str, Any]
) -> None:
    words = [f"class {index}" for index in range(count)]
    del entry["ignore"]
    register_custom_datasets([{**entry, "words": words}])
    assert MetadataCatalog.get(NAME).ignore_label == ignore


def test_panoptic_classes_come_from_the_json(panoptic_entry: dict[str, Any]) -> None:
    register_custom_datasets([panoptic_entry])
    metadata = MetadataCatalog.get(NAME)
    categories = json.loads(Path(panoptic_entry["annotations"]).read_text())["categories"]
    assert metadata.stuff_classes == [category["name"] for category in categories]
    assert len(metadata.thing_dataset_id_to_contiguous_id) == 80
    assert len(DatasetCatalog.get(NAME)) == 2
    assert GroundTruth(NAME).semantic_labels(DatasetCatalog.get(NAME)[0])


def test_panoptic_words_may_be_given_by_category_id(
    panoptic_entry: dict[str, Any], tmp_path: Path
) -> None:
    categories = json.loads(Path(panoptic_entry["annotations"]).read_text())["categories"]
    lines = [f"{c['id']}: word {c['id']}" for c in categories]
    words = tmp_path / "words.txt"
    words.write_text("\n".join(lines))
    register_custom_datasets([{**panoptic_entry, "words": str(words)}])
    expected = [f"word {category['id']}" for category in categories]
    assert MetadataCatalog.get(NAME).stuff_classes == expected
    words.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"do not have the same ids: \[200\] are in only one"):
        register_custom_datasets([{**panoptic_entry, "words": str(words)}])


def test_images_are_found_by_their_names_in_the_json(panoptic_entry: dict[str, Any]) -> None:
    json_file = Path(panoptic_entry["annotations"])
    content = json.loads(json_file.read_text())
    folder = Path(panoptic_entry["images"])
    for image in content["images"]:
        renamed = f"photo {image['id']}.png"
        Image.open(folder / image["file_name"]).save(folder / renamed)
        image["file_name"] = renamed
    json_file.write_text(json.dumps(content))
    register_custom_datasets([panoptic_entry])
    assert DatasetCatalog.get(NAME)[0]["file_name"] == str(folder / "photo 7.png")


def test_missing_images_are_counted_and_named(panoptic_entry: dict[str, Any]) -> None:
    for file in Path(panoptic_entry["images"]).iterdir():
        file.unlink()
    register_custom_datasets([panoptic_entry])
    with pytest.raises(FileNotFoundError, match=r"2 of 2 images .*\n.*000000000007\.jpg"):
        DatasetCatalog.get(NAME)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "folder"}, ValueError, r"\[0\]: kind must be one of"),
        ({"images": ""}, ValueError, "also needs images"),
        ({"lables": "x"}, ValueError, "'lables' is not a key of kind index_png"),
        ({"imges": "x"}, ValueError, "did you mean images"),
        ({"images": "nowhere"}, FileNotFoundError, "nowhere is not a folder"),
        ({"words": "absent.txt"}, FileNotFoundError, r"absent\.txt does not exist"),
        ({"words": ["dog", "cat, dog"]}, ValueError, r"'dog' \(classes 0, 1\)"),
        ({"words": ["dog", "cat,,"]}, ValueError, "empty synonym"),
        ({"words": 3}, ValueError, "words must be the path"),
        ({"ignore": 7}, ValueError, "also the value of the class 'dog, puppy'"),
        ({"words": "large.txt"}, ValueError, "numbers a class 65536, but .* hold values 0..65535"),
        ({"ignore": "void"}, ValueError, "ignore must be an integer"),
        ({"name": "shapes_val"}, ValueError, "shapes_val is a built-in dataset"),
        ({"name": "../x"}, ValueError, r"\[0\]: name is that of a folder too, found '../x'"),
        ({"suffix": ".png"}, ValueError, "the key suffix is now label_suffix"),
        ({"name": 2017}, ValueError, r"\[0\]: name must be a string, found 2017"),
        ({"images": ["images"]}, ValueError, "images must be a string"),
    ],
)
def test_wrong_entries_are_explained(
    changes: dict[str, Any], error: type[Exception], message: str, entry: dict[str, Any]
) -> None:
    with pytest.raises(error, match=message):
        register_custom_datasets([{**entry, **changes}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ignore": 0}, r"ignore must be .* no class, 133\.\.65535, found 0, the class 'person'"),
        ({"ignore": 132}, r"ignore must be .* no class, 133\.\.65535, found 132, the class"),
        ({"ignore": -1}, r"133\.\.65535, found -1$"),
        ({"semantic_maps": "nowhere"}, r"semantic_maps: .*nowhere is not a folder"),
        ({"instances": "nowhere.json"}, r"nowhere\.json does not exist; .* the instances of"),
        ({"panoptic_maps": "nowhere"}, r"panoptic_maps: .*nowhere is not a folder"),
    ],
)
def test_wrong_panoptic_entries_are_explained(
    changes: dict[str, Any], message: str, panoptic_entry: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        register_custom_datasets([{**panoptic_entry, **changes}])


def test_instances_of_other_categories_are_refused(
    panoptic_entry: dict[str, Any], tmp_path: Path
) -> None:
    layout = Instances("images/a.jpg", "instances.json", 2)
    make_instances(tmp_path, layout, (3, 999))
    instances = str(tmp_path / layout.json)
    with pytest.raises(ValueError, match=r"must be the things of .*, but the ids \[1, 2, .* only"):
        register_custom_datasets([{**panoptic_entry, "instances": instances}])


def test_two_entries_of_one_name_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"CUSTOM\[1\]: DATASETS.CUSTOM\[0\] has the name {NAME}"):
        register_custom_datasets([entry, {**entry, "words": "dog, lawn"}])


def test_category_ids_that_stand_twice_are_named(panoptic_entry: dict[str, Any]) -> None:
    json_file = Path(panoptic_entry["annotations"])
    content = json.loads(json_file.read_text())
    content["categories"][3]["id"] = 1
    json_file.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"categories\[3\]\.id must be unique, found 1, .* of categories\[0\]"
    ):
        register_custom_datasets([panoptic_entry])


def test_an_entry_that_is_no_mapping_is_shown() -> None:
    with pytest.raises(ValueError, match=r"CUSTOM\[0\]: expected a mapping .* found 'my_data'"):
        register_custom_datasets(["my_data"])


def test_two_images_of_one_label_map_are_refused(entry: dict[str, Any]) -> None:
    Image.new("RGB", (4, 4)).save("images/a.PNG")
    register_custom_datasets([entry])
    with pytest.raises(ValueError, match=r"images/a\..* and .*images/a\..* have the same name"):
        DatasetCatalog.get(NAME)


def test_a_second_registration_replaces_the_first(entry: dict[str, Any]) -> None:
    register_custom_datasets([entry])
    register_custom_datasets([{**entry, "words": "dog, lawn", "ignore": 255}])
    assert MetadataCatalog.get(NAME).stuff_classes == ["dog", "lawn"]


def test_the_setting_survives_files_and_command_line(entry: dict[str, Any], tmp_path: Path) -> None:
    """Merged from the command line, dumped, and read from that file as it was."""
    first, second = get_cfg(), get_cfg()
    merge_options(first, ["DATASETS.CUSTOM", str([entry]), "DATASETS.VOCABULARY", "sky, dog"])
    assert list(first.DATASETS.CUSTOM) == [entry]
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(first.dump())
    merge_config_file(second, dumped)
    assert second.DATASETS == first.DATASETS


def test_an_instance_json_is_a_dataset_too(tmp_path: Path) -> None:
    layout = Instances("images/a.jpg", "instances.json", 2)
    make_instances(tmp_path, layout, (3, 8))
    register_custom_datasets(
        [
            {
                "name": NAME,
                "kind": "coco_instances",
                "images": str(tmp_path / "images"),
                "annotations": str(tmp_path / layout.json),
            }
        ]
    )
    metadata = MetadataCatalog.get(NAME)
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 8: 1}
    assert metadata.evaluator_type == "coco"
    (record,) = DatasetCatalog.get(NAME)
    assert record["file_name"] == str(tmp_path / layout.image)


def test_an_annotation_without_a_named_image_is_explained(panoptic_entry: dict[str, Any]) -> None:
    json_file = Path(panoptic_entry["annotations"])
    content = json.loads(json_file.read_text())
    del content["images"][0]["file_name"]
    json_file.write_text(json.dumps(content))
    register_custom_datasets([panoptic_entry])
    with pytest.raises(ValueError, match=r"panoptic_val2017\.json: .* not listed with a file_name"):
        DatasetCatalog.get(NAME)


def test_file_names_are_one_of_three_ways(panoptic_entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"file_names must be one of .*'listed'.* found 'any'"):
        register_custom_datasets([{**panoptic_entry, "file_names": "any"}])
