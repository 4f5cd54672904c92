"""The census of an own dataset: what it reports, what it refuses, and that it is cached."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import ExifTags, Image

from maskclippp.config.keys import get_cfg
from maskclippp.data import census
from maskclippp.data.custom import register_custom_datasets
from maskclippp.data.loader import build_train_loader
from maskclippp.errors import InputError

NAME = "census_for_tests"
HEIGHT, WIDTH = 20, 30


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    yield
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def index_set(root: Path, labels: np.ndarray[Any, Any], words: Any) -> dict[str, Any]:
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"images/{name}.jpg")
        Image.fromarray(labels).save(root / f"labels/{name}.png")
    folders = {"images": str(root / "images"), "annotations": str(root / "labels")}
    return {"name": NAME, "kind": "index_png", "words": words, **folders}


def halves(upper: int, lower: int) -> np.ndarray[Any, Any]:
    labels = np.full((HEIGHT, WIDTH), upper, np.uint16 if lower > 255 else np.uint8)
    labels[HEIGHT // 2 :] = lower
    return labels


@pytest.fixture
def panoptic(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry and the JSON's content; call :func:`save` to write it."""
    for folder in ("images", "maps"):
        (tmp_path / folder).mkdir()
    ids = np.stack([halves(1, 2), *np.zeros((2, HEIGHT, WIDTH), np.uint8)], axis=-1)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": f"class {i}", "isthing": i - 1} for i in (1, 2)],
    }
    for number, name in enumerate("ab"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"images/{name}.jpg")
        Image.fromarray(ids).save(tmp_path / f"maps/{name}.png")
        content["images"].append({"id": number, "file_name": f"{name}.jpg"})
        segments = [{"id": i, "category_id": i, "area": 300, "iscrowd": 0} for i in (1, 2)]
        content["annotations"].append(
            {"image_id": number, "file_name": f"{name}.png", "segments_info": segments}
        )
    entry = {
        "name": NAME,
        "kind": "coco_panoptic",
        "images": str(tmp_path / "images"),
        "annotations": str(tmp_path / "panoptic.json"),
        "panoptic_maps": str(tmp_path / "maps"),
    }
    return entry, content


def load(entry: dict[str, Any], content: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    if content is not None:
        Path(entry["annotations"]).write_text(json.dumps(content))
    register_custom_datasets([entry])
    records: list[dict[str, Any]] = DatasetCatalog.get(NAME)
    return records


def test_the_table_gives_the_share_of_every_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load(index_set(tmp_path, halves(1, 255), ["sky", "dog", "cow"]))
        DatasetCatalog.get(NAME)
    (table,) = (r.getMessage() for r in caplog.records if r.levelno == logging.INFO)
    assert "2 images, 1 of 3 classes occur, 50.00% of the pixels are ignored" in table
    assert "dog      50.00%" in table
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "2 of 3 classes do not occur: 'sky', 'cow'" in warning


@pytest.mark.parametrize(
    ("words", "effect"),
    [
        (["background", "lesion"], "'lesion' is never learned"),
        (["lesion"], "all others are 'lesion'"),
    ],
)
def test_the_foreground_of_0_and_255_is_explained(
    words: list[str], effect: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(index_set(tmp_path, halves(0, 255), words))
    assert f"value 255, 50.00% of all, are ignored, and {effect}" in caplog.text
    assert "number the lines of the word list (0: background, 255: lesion)" in caplog.text


def test_ignored_pixels_beside_a_foreground_are_no_surprise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = halves(0, 255)
    labels[0] = 1
    load(index_set(tmp_path, labels, ["background", "lesion"]))
    assert "never learned" not in caplog.text


def test_void_that_is_read_as_a_class_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(index_set(tmp_path, halves(0, 255), [f"word {i}" for i in range(300)]))
    assert "value 255 is read as the class 'word 255'" in caplog.text


def test_255_among_larger_values_is_a_class_like_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(index_set(tmp_path, halves(255, 256), [f"word {i}" for i in range(300)]))
    assert "value 255 is read" not in caplog.text


def test_nothing_labeled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing can be learned or scored, because all 1200 pix"):
        load(index_set(tmp_path, halves(255, 255), ["sky", "dog"]))


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 8])
def test_turned_images_are_counted(
    orientation: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = index_set(tmp_path, halves(0, 1), ["sky", "dog"])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    size = (HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT)
    Image.new("RGB", size).save(tmp_path / "images/b.jpg", exif=exif)
    load(entry)
    assert "b.jpg, is turned or mirrored" in caplog.text


def test_segments_that_only_the_map_has_are_refused(panoptic: tuple[Any, Any]) -> None:
    entry, content = panoptic
    del content["annotations"][1]["segments_info"][0]
    message = r"panoptic\.json, .*b\.png: segments_info .* segment 1, which has 300 pixels"
    with pytest.raises(InputError, match=message):
        load(entry, content)


def test_segments_that_only_the_json_has_are_counted(
    panoptic: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    entry, content = panoptic
    extra = {"id": 9, "category_id": 1, "area": 0, "iscrowd": 0}
    content["annotations"][0]["segments_info"].append(extra)
    assert len(load(entry, content)) == 2
    assert "1 segments of the JSON have no pixel" in caplog.text


@pytest.mark.parametrize("area", [0, 299, 601])
def test_impossible_areas_are_refused(area: int, panoptic: tuple[Any, Any]) -> None:
    entry, content = panoptic
    content["annotations"][1]["segments_info"][1]["area"] = area
    message = rf"b\.png: the area of segment 2 .* from 300, .* to 600, .* found {area}"
    with pytest.raises(InputError, match=message):
        load(entry, content)


def test_semantic_maps_that_do_not_exist_are_noticed(
    panoptic: tuple[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry, content = panoptic
    (tmp_path / "semantic").mkdir()
    entry["semantic_maps"] = str(tmp_path / "semantic")
    with pytest.raises(InputError, match=r"none of the label maps below semantic_maps exists"):
        load(entry, content)
    Image.fromarray(halves(0, 1)).save(tmp_path / "semantic/a.png")
    load(entry, content)
    assert "1 label maps of semantic_maps, the first of them" in caplog.text
    Image.fromarray(halves(0, 2)).save(tmp_path / "semantic/b.png")
    with pytest.raises(InputError, match=r"semantic/b\.png: pixel value 2"):
        load(entry, content)


def test_a_map_saved_as_jpeg_is_refused(panoptic: tuple[Any, Any]) -> None:
    entry, content = panoptic
    file = Path(entry["panoptic_maps"]) / "b.png"
    Image.open(file).save(file, format="JPEG")
    with pytest.raises(InputError, match=r"b\.png cannot be read: it is a JPEG file"):
        load(entry, content)


def test_crowds_alone_cannot_be_trained_on(
    panoptic: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    entry, content = panoptic
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = 1
    load(entry, content)
    assert "all 4 objects are crowds" in caplog.text
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.INPUT.DATASET_MAPPER_NAME = "coco_panoptic_lsj"
    cfg.INPUT.FORMAT = "RGB"
    with pytest.raises(
        InputError, match=r"none of the 2 records .* has an object that is not a cr"
    ):
        build_train_loader(cfg)


def test_some_crowds_are_no_surprise(
    panoptic: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    entry, content = panoptic
    content["annotations"][0]["segments_info"][1]["iscrowd"] = 1
    load(entry, content)
    assert caplog.text == ""


def test_files_are_read_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = index_set(tmp_path, halves(0, 1), ["sky", "dog"])
    uncompressed = {"compress_level": 0}  # all files are of one size
    Image.fromarray(halves(0, 1)).save(tmp_path / "labels/b.png", **uncompressed)
    load(entry)
    with monkeypatch.context() as patch:
        patch.setattr(census, "take_census", None)
        load(entry)
    Image.fromarray(halves(7, 7)).save(tmp_path / "labels/b.png", **uncompressed)
    with pytest.raises(InputError, match="pixel value 7"):
        load(entry)


def test_a_damaged_or_unwritable_cache_does_no_harm(tmp_path: Path) -> None:
    entry = index_set(tmp_path, halves(0, 1), ["sky", "dog"])
    load(entry)
    (stored,) = (tmp_path / "cache/census").iterdir()
    stored.write_text('{"images": "2"}')
    load(entry)
    stored.unlink()
    stored.parent.rmdir()
    stored.parent.write_text("no folder")
    load(entry)


def test_large_sets_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(census, "MAX_READ", 1)
    with caplog.at_level(logging.INFO):
        load(index_set(tmp_path, halves(0, 0), ["sky", "dog"]))
    assert "2 images (files of 1 image read)" in caplog.text
    assert "1 of 2 classes do not occur in the 1 label maps read: 'dog'" in caplog.text


def test_samples_reach_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = index_set(tmp_path, halves(0, 1), ["sky", "dog"])
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/c.jpg")
    Image.fromarray(halves(7, 7)).save(tmp_path / "labels/c.png")
    monkeypatch.setattr(census, "MAX_READ", 2)
    with pytest.raises(InputError, match=r"c\.png: pixel value 7"):
        load(entry)
