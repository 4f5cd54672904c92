"""Every image is evaluated once; in batches, images of equal size come together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.data.loader import Batch
from maskclippp.data.mappers.evaluation import EvaluationMapper
from maskclippp.data.test_loader import build_test_loader
from maskclippp.errors import InputError
from maskclippp.records import Record

# Height and width, of which some become equal only when they are resized.
SIZES = [(4, 6), (8, 6), (6, 4), (4, 6), (6, 8), (3, 4), (6, 4)]


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Image files, registered as the dataset ``test_loader``."""
    files = []
    for index, (height, width) in enumerate(SIZES):
        files.append(str(tmp_path / f"{index}.png"))
        Image.new("RGB", (width, height)).save(files[-1])
    records = [{"file_name": file} for file in files]
    if "test_loader" in DatasetCatalog.list():
        DatasetCatalog.remove("test_loader")
    DatasetCatalog.register("test_loader", lambda: records)
    return files


def batches(batch_size: int, workers: int = 0) -> list[Sequence[Record]]:
    cfg: CfgNode = get_cfg()
    cfg.TEST.BATCH_SIZE = batch_size
    cfg.DATALOADER.NUM_WORKERS = workers
    mapper = EvaluationMapper(min_size=6, max_size=100, with_ground_truth=False)
    loaded: Any = build_test_loader(cfg, "test_loader", mapper)
    return list(loaded)


def numbers(loaded: list[Sequence[Record]]) -> list[list[int]]:
    return [[int(Path(record["file_name"]).stem) for record in batch] for batch in loaded]


def test_single_images_come_in_the_order_of_the_dataset(names: list[str]) -> None:
    assert numbers(batches(1)) == [[index] for index in range(len(SIZES))]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_equal_resized_size_are_neighbors(names: list[str], workers: int) -> None:
    # Resized to 6 x 9, 8 x 6, 9 x 6, 6 x 9, 6 x 8, 6 x 8, 9 x 6.
    loaded = batches(2, workers)
    assert numbers(loaded) == [[0, 3], [2, 6], [4, 5], [1]]
    assert [tuple(record["image"].shape[1:]) for record in loaded[2]] == [(6, 8), (6, 8)]


def test_the_largest_images_come_first(names: list[str]) -> None:
    areas = [record["image"][0].numel() for batch in batches(3) for record in batch]
    assert areas == sorted(areas, reverse=True)


def test_a_batch_of_no_image_is_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match=r"TEST\.BATCH_SIZE: .* found 0"):
        batches(0)


def test_all_tensors_of_a_batch_are_moved() -> None:
    instances = Instances((2, 2), gt_masks=torch.zeros(1, 2, 2), gt_classes=torch.zeros(1))
    record: Any = {"image": torch.zeros(3, 2, 2), "instances": instances, "file_name": "a.png"}
    (moved,) = Batch([record]).move(lambda tensor: tensor + 1)
    fields: Any = moved["instances"].get_fields()
    assert [float(t.min()) for t in (moved["image"], *fields.values())] == [1, 1, 1]
    assert moved["file_name"] == "a.png"
