"""The built-in world: its annotation is exact and its words are complete."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.shapes import dataset
from maskclippp.data.shapes.captions import describe
from maskclippp.data.shapes.dataset import SPLIT_SIZES, classes_of, make_split, scene_of
from maskclippp.data.shapes.scenes import MIN_OBJECT_AREA, MIN_VISIBLE_SHARE
from maskclippp.data.shapes.vocabulary import CLASSES, COLORS, FEW_COLORS, GROUNDS, SHAPES, TINTS
from maskclippp.files.images import read_image, read_label_map, read_panoptic_ids
from maskclippp.words.vocabulary import Vocabulary

SPLITS = tuple(SPLIT_SIZES)
FEW = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All splits with a few scenes each, as files."""
    root = tmp_path_factory.mktemp("world")
    for split in SPLITS:
        dataset.write_split(split, FEW, root / split)
    return root


def annotations_of(world: Path, split: str) -> dict:
    return json.loads((world / split / "panoptic.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", SPLITS)
def test_panoptic_map_holds_exactly_the_listed_segments(world: Path, split: str) -> None:
    for annotation in annotations_of(world, split)["annotations"]:
        ids = read_panoptic_ids(world / split / "panoptic" / annotation["file_name"])
        found = dict(zip(*np.unique(ids[ids > 0], return_counts=True), strict=True))
        assert found == {s["id"]: s["area"] for s in annotation["segments_info"]}


@pytest.mark.parametrize("split", SPLITS)
def test_semantic_map_agrees_with_panoptic_map(world: Path, split: str) -> None:
    contiguous = {c.id: i for i, c in enumerate(classes_of(split))}
    for annotation in annotations_of(world, split)["annotations"]:
        ids = read_panoptic_ids(world / split / "panoptic" / annotation["file_name"])
        expected = np.full(ids.shape, dataset.VOID)
        for segment in annotation["segments_info"]:
            expected[ids == segment["id"]] = contiguous[segment["category_id"]]
        actual = read_label_map(world / split / "semantic" / annotation["file_name"])
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_enclose_their_segments(world: Path, split: str) -> None:
    for annotation in annotations_of(world, split)["annotations"]:
        ids = read_panoptic_ids(world / split / "panoptic" / annotation["file_name"])
        for segment in annotation["segments_info"]:
            rows, columns = np.nonzero(ids == segment["id"])
            x, y = columns.min(), rows.min()
            size = [columns.max() - x + 1, rows.max() - y + 1]
            assert segment["bbox"] == [x, y, *size]


def test_instances_are_the_things(world: Path) -> None:
    panoptic = annotations_of(world, "val")
    instances = json.loads((world / "val" / "instances.json").read_text(encoding="utf-8"))
    things = {c["id"] for c in panoptic["categories"] if c["isthing"]}
    expected = sorted(
        (a["image_id"], s["category_id"], s["area"])
        for a in panoptic["annotations"]
        for s in a["segments_info"]
        if s["category_id"] in things
    )
    assert expected == sorted(
        (a["image_id"], a["category_id"], a["area"]) for a in instances["annotations"]
    )
    assert len({a["id"] for a in instances["annotations"]}) == len(expected)


def test_image_files_show_the_scenes(world: Path) -> None:
    image = np.asarray(read_image(world / "val" / "images" / "000003.jpg"), dtype=float)
    assert np.abs(image - scene_of("val", 3).image).mean() < 3  # JPEG is not exact


def test_every_pixel_of_val_is_annotated() -> None:
    for index in range(FEW):
        scene = scene_of("val", index)
        assert scene.segment_ids.min() >= 1
        assert scene.segment_ids.max() == len(scene.segments)


def test_a_scene_is_a_function_of_split_and_index() -> None:
    first, again = scene_of("val", 7), scene_of("val", 7)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.segment_ids, again.segment_ids)
    assert first.segments == again.segments


@pytest.mark.parametrize("other", [("val", 8), ("train", 7), ("tune", 7)])
def test_scenes_differ(other: tuple[str, int]) -> None:
    assert (scene_of("val", 7).image != scene_of(*other).image).any()


def test_train_annotates_seen_classes_only(world: Path) -> None:
    unseen = {c.id for c in CLASSES if not c.is_seen}
    train = annotations_of(world, "train")
    drawn = {s.category.id for i in range(FEW) for s in scene_of("train", i).segments}
    assert drawn & unseen, "unseen objects stand in training scenes, without annotation"
    annotated = {s["category_id"] for a in train["annotations"] for s in a["segments_info"]}
    assert not annotated & unseen
    assert not {c["id"] for c in train["categories"]} & unseen


def test_every_class_occurs_in_val() -> None:
    counts = dict.fromkeys((c.id for c in CLASSES), 0)
    for index in range(SPLIT_SIZES["val"]):
        for segment in scene_of("val", index).segments:
            counts[segment.category.id] += 1
    assert min(counts.values()) >= 5


def test_objects_stay_recognizable() -> None:
    """No object is hidden by more than the limit, and none is a sliver."""
    areas = [s.area for i in range(30) for s in scene_of("val", i).segments if s.category.is_thing]
    assert min(areas) >= MIN_OBJECT_AREA * MIN_VISIBLE_SHARE


def test_vocabulary_is_the_product_of_its_words() -> None:
    parts = {(c.color, c.form) for c in CLASSES}
    product = {(c, s) for c in COLORS for s in SHAPES} | {(t, g) for t in TINTS for g in GROUNDS}
    assert parts == product
    assert [c.id for c in CLASSES] == list(range(1, len(CLASSES) + 1))


def test_names_belong_to_one_class() -> None:
    names = [name for c in CLASSES for name in c.names]
    assert len(names) == len(set(names))


def test_words_of_unseen_classes_occur_in_seen_ones() -> None:
    seen_words = {part for c in CLASSES if c.is_seen for part in (c.color, c.form)}
    assert any(not c.is_seen for c in CLASSES)
    assert all({c.color, c.form} <= seen_words for c in CLASSES if not c.is_seen)


def test_registered_vocabularies_tell_seen_from_unseen() -> None:
    train, few, val, tune = (
        Vocabulary.from_metadata(MetadataCatalog.get(f"shapes_{s}")) for s in SPLITS
    )
    assert val.seen_in(train).tolist() == [c.is_seen for c in CLASSES]
    assert tune.classes == val.classes
    in_few = [c.is_seen and c.color in FEW_COLORS for c in CLASSES]
    assert val.seen_in(few).tolist() == in_few
    assert sum(in_few) == 14


def test_the_biased_training_set_shows_the_scenes_of_the_other(world: Path) -> None:
    for index in range(FEW):
        name = f"{index:06d}.jpg"
        few, train = (world / s / "images" / name for s in ("few_train", "train"))
        assert few.read_bytes() == train.read_bytes()
    annotated, all_seen = (
        {
            s["category_id"]
            for a in annotations_of(world, split)["annotations"]
            for s in a["segments_info"]
        }
        for split in ("few_train", "train")
    )
    assert annotated == {c.id for c in classes_of("few_train")} & all_seen


def test_things_and_stuff_are_told_apart() -> None:
    metadata = MetadataCatalog.get("shapes_val")
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.ignore_label == dataset.VOID
    things = metadata.thing_dataset_id_to_contiguous_id
    assert things == {c.id: i for i, c in enumerate(CLASSES) if c.is_thing}
    assert len(metadata.stuff_dataset_id_to_contiguous_id) == len(CLASSES)


def test_records_point_to_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The registered function makes the files at the first call."""
    monkeypatch.setitem(SPLIT_SIZES, "val", 2)
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path))
    names = {f"shapes_{split}" for split in SPLITS}
    saved = {name: (DatasetCatalog[name], MetadataCatalog[name]) for name in names}
    try:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        dataset.register_shapes()
        records = DatasetCatalog.get("shapes_val")
        assert len(records) == 2
        for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
            assert Path(records[0][key]).is_file()
            assert tmp_path in Path(records[0][key]).parents
    finally:
        for name, (function, metadata) in saved.items():
            DatasetCatalog[name], MetadataCatalog[name] = function, metadata


def _make(split: str, root: Path, size: int) -> None:
    SPLIT_SIZES[split] = size
    make_split(split, root)


def test_processes_that_ask_at_once_share_one_drawing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_make, args=("val", tmp_path, 3)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val", "val.lock"]
    assert len(annotations_of(tmp_path, "val")["annotations"]) == 3


@pytest.mark.parametrize(
    "name", ["images/000001.jpg", "panoptic/000000.png", "panoptic.json", "checksums.json"]
)
def test_damaged_drawing_is_drawn_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(SPLIT_SIZES, "val", 2)
    file = make_split("val", tmp_path) / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    make_split("val", tmp_path)
    assert file.read_bytes() == whole
    assert "val is damaged: drawn again" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val", "val.lock"]


def test_interrupted_drawing_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(split: str, index: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "scene_of", fail)
    with pytest.raises(KeyboardInterrupt):
        make_split("val", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["val.lock"]


def test_captions_name_what_is_drawn() -> None:
    scene = scene_of("val", 0)
    words = {name.split()[-1] for s in scene.segments for name in s.category.names}
    generator = np.random.default_rng(0)
    captions = [describe(scene, generator) for _ in range(20)]
    assert len(set(captions)) > 15
    assert all(words & set(caption.rstrip(".").split()) for caption in captions)
