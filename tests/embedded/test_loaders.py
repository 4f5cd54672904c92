"""Loaders: order, batches, workers, filtering."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from detectron2.data.samplers import TrainingSampler
from PIL import Image

from tests.embedded.toy import toy_config

NAME = "loader_test_dataset"
CROWD = {"category_id": 0, "iscrowd": 1}
OBJECT = {"category_id": 0, "iscrowd": 0}


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "width": 5 if i % 2 else 3, "height": 4} for i in range(count)]


def as_mapped(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "mapped": True}


@pytest.fixture
def dataset() -> Iterator[list[dict[str, Any]]]:
    items = records(6)
    DatasetCatalog.register(NAME, lambda: items)
    yield items
    DatasetCatalog.remove(NAME)


def first_ids(loader: Any, batches: int) -> list[list[int]]:
    return [[item["id"] for item in batch] for batch in itertools.islice(iter(loader), batches)]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_follow_the_sampler(workers: int) -> None:
    loader = build_detection_train_loader(
        records(7),
        mapper=as_mapped,
        sampler=TrainingSampler(7, shuffle=False),
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=workers,
    )
    # Several workers may exchange their turns, so only what was drawn is compared then.
    drawn = list(itertools.chain(*first_ids(loader, 7)))
    expected = [i % 7 for i in range(21)]
    assert drawn == expected if workers == 0 else set(drawn) == set(expected)


def test_wide_and_high_images_do_not_share_a_batch() -> None:
    loader = build_detection_train_loader(
        records(9), mapper=as_mapped, total_batch_size=2, aspect_ratio_grouping=True
    )
    for batch in itertools.islice(iter(loader), 20):
        assert len(batch) == 2
        assert len({item["width"] > item["height"] for item in batch}) == 1


def test_training_loader_from_config(dataset: list[dict[str, Any]], tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, max_iter=1)
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    batch = next(iter(build_detection_train_loader(cfg, mapper=as_mapped)))
    assert [item["mapped"] for item in batch] == [True, True]


def test_the_seed_decides_the_order(dataset: list[dict[str, Any]], tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, max_iter=1)
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.SOLVER.IMS_PER_BATCH = 1
    cfg.DATALOADER.NUM_WORKERS = 0
    orders = []
    for seed in (1, 1, 2):
        cfg.SEED = seed
        loader = build_detection_train_loader(cfg, mapper=as_mapped)
        orders.append(first_ids(loader, 12))
    assert orders[0] == orders[1] != orders[2]


def test_an_unknown_sampler_is_an_error(dataset: list[dict[str, Any]], tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, max_iter=1)
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.DATALOADER.SAMPLER_TRAIN = "NoSuchSampler"
    with pytest.raises(ValueError, match="NoSuchSampler"):
        build_detection_train_loader(cfg, mapper=as_mapped)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_record_once_in_order(workers: int) -> None:
    loader = build_detection_test_loader(records(5), mapper=as_mapped, num_workers=workers)
    assert first_ids(loader, 10) == [[0], [1], [2], [3], [4]]


def test_evaluation_batches_may_be_larger_and_the_last_one_smaller() -> None:
    loader = build_detection_test_loader(records(5), mapper=as_mapped, batch_size=2)
    assert first_ids(loader, 10) == [[0, 1], [2, 3], [4]]


def test_test_loader_from_config(dataset: list[dict[str, Any]], tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, max_iter=1)
    cfg.DATALOADER.NUM_WORKERS = 0
    loader = build_detection_test_loader(cfg, NAME, mapper=as_mapped)
    assert len(loader) == len(dataset)


def test_records_without_objects_are_left_out_in_training_only() -> None:
    items = [{"annotations": a} for a in ([OBJECT], [], [CROWD], [CROWD, OBJECT])]
    DatasetCatalog.register(NAME, lambda: items)
    try:
        assert len(get_detection_dataset_dicts(NAME, filter_empty=True)) == 2
        assert len(get_detection_dataset_dicts([NAME], filter_empty=False)) == 4
    finally:
        DatasetCatalog.remove(NAME)


def test_records_without_annotation_lists_are_kept(dataset: list[dict[str, Any]]) -> None:
    assert len(get_detection_dataset_dicts(NAME, filter_empty=True)) == len(dataset)


def test_several_datasets_follow_each_other(dataset: list[dict[str, Any]]) -> None:
    assert get_detection_dataset_dicts([NAME, NAME]) == dataset + dataset


def test_an_empty_dataset_is_an_error() -> None:
    DatasetCatalog.register(NAME, list)
    try:
        with pytest.raises(AssertionError):
            get_detection_dataset_dicts(NAME)
    finally:
        DatasetCatalog.remove(NAME)


def test_a_mapper_may_refuse_a_record() -> None:
    mapped = MapDataset(DatasetFromList(records(20)), lambda item: item if item["id"] % 2 else None)
    assert mapped[3]["id"] == 3
    assert mapped[4]["id"] % 2


@pytest.mark.parametrize("serialize", [True, False])
def test_changing_an_item_does_not_change_the_dataset(serialize: bool) -> None:
    dataset = DatasetFromList([{"a": [1]}, {"a": [2, 3]}], serialize=serialize)
    dataset[1]["a"].append(9)
    assert dataset[1] == {"a": [2, 3]}
    assert len(dataset) == 2


def test_workers_draw_different_random_numbers() -> None:
    loader = build_detection_train_loader(
        records(8),
        mapper=lambda record: (np.random.rand(), torch.rand(()).item()),
        total_batch_size=2,
        aspect_ratio_grouping=False,
        num_workers=2,
    )
    draws = list(itertools.chain(*itertools.islice(iter(loader), 4)))
    assert len({draw[0] for draw in draws}) == len({draw[1] for draw in draws}) == len(draws)


def write_image(path: Path) -> np.ndarray:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, :, 0] = 200
    Image.fromarray(pixels).save(path)
    return pixels


def test_images_are_read_in_the_format_asked_for(tmp_path: Path) -> None:
    pixels = write_image(tmp_path / "image.png")
    path = str(tmp_path / "image.png")
    assert np.array_equal(read_image(path, "RGB"), pixels)
    assert np.array_equal(read_image(path, "BGR"), pixels[:, :, ::-1])
    assert read_image(path, "L").shape == (4, 6, 1)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    assert read_image(str(tmp_path / "image.png"), "RGB").shape == (6, 4, 3)


def test_a_size_that_differs_from_the_record_names_the_file() -> None:
    record = {"file_name": "some.jpg", "width": 7, "height": 4}
    with pytest.raises(SizeMismatchError, match=r"some\.jpg"):
        check_image_size(record, np.zeros((4, 6, 3)))


def test_a_missing_size_is_filled_in() -> None:
    record: dict[str, Any] = {}
    check_image_size(record, np.zeros((4, 6, 3)))
    assert record == {"width": 6, "height": 4}
