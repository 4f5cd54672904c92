"""What is drawn depends on seed and position alone: not on workers, ranks or interruptions."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import RandomSubsetTrainingSampler, TrainingSampler
from detectron2.structures import Instances
from PIL import Image
from torch.utils.data import DataLoader

from maskclippp.config.keys import get_cfg
from maskclippp.data.loader import (
    AspectRatioGroups,
    MappedRecords,
    PositionedBatchSampler,
    batch_of,
    build_train_loader,
    images_per_process,
    random_subset,
)
from tests.golden_cases import cases

SAMPLERS = cases("engine_samplers")[0].info


def records(count: int) -> list[dict[str, Any]]:
    return [
        {"file_name": f"{index}.png", "width": 4 + index % 3, "height": 5, "index": index}
        for index in range(count)
    ]


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """The record with one number of each generator."""
    return {**record, "drawn": (random.random(), np.random.rand(), torch.rand(()).item())}


def refuse_odd(record: dict[str, Any]) -> dict[str, Any] | None:
    return None if record["index"] % 2 else draw(record)


def refuse_all(record: dict[str, Any]) -> None:
    return None


def config(*options: Any, count: int = 20) -> CfgNode:
    name = f"loader_test_{count}"
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, lambda: records(count))
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (name,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SEED = 3
    cfg.merge_from_list(list(options))
    return cfg


def first_batches(count: int, *options: Any, start_batch: int = 0, mapper: Any = draw) -> list:
    loader = build_train_loader(config(*options), mapper=mapper, start_batch=start_batch)
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("golden", [g for g in SAMPLERS["training"] if g["world"] == 1])
def test_stream_equals_golden(golden: dict[str, Any]) -> None:
    sampler = TrainingSampler(golden["size"], shuffle=golden["shuffle"], seed=golden["seed"])
    batches = PositionedBatchSampler(sampler, batch_size=5)
    samples = [sample for batch in itertools.islice(batches, 10) for sample in batch]
    assert [index for index, _ in samples] == golden["first_50_per_rank"][0]
    assert [position for _, position in samples] == list(range(50))


@pytest.mark.parametrize("golden", [g for g in SAMPLERS["training"] if g["world"] > 1])
def test_ranks_know_their_global_positions(golden: dict[str, Any]) -> None:
    world = golden["world"]
    whole = next(
        other["first_50_per_rank"][0]
        for other in SAMPLERS["training"]
        if other["world"] == 1 and all(other[k] == golden[k] for k in ("size", "seed", "shuffle"))
    )
    for rank, stream in enumerate(golden["first_50_per_rank"]):
        batches = PositionedBatchSampler(stream, batch_size=5, rank=rank, world_size=world)
        for index, position in itertools.chain.from_iterable(batches):
            if position < len(whole):
                assert whole[position] == index


@pytest.mark.parametrize("golden", SAMPLERS["random_subset"])
def test_replacements_come_from_the_random_subset(golden: dict[str, Any]) -> None:
    subset = random_subset(golden["size"], golden["ratio"], golden["seed_subset"])
    assert sorted(subset) == sorted(golden["first_30"][: len(subset)])
    sampler = RandomSubsetTrainingSampler(
        golden["size"],
        golden["ratio"],
        seed_shuffle=golden["seed_shuffle"],
        seed_subset=golden["seed_subset"],
    )
    assert list(itertools.islice(sampler, 30)) == golden["first_30"]


def test_batches_hold_one_orientation(tmp_path: Path) -> None:
    for batch in first_batches(20):
        assert len({record["width"] > record["height"] for record in batch}) == 1


def test_without_grouping_orientations_mix() -> None:
    mixed = first_batches(20, "DATALOADER.ASPECT_RATIO_GROUPING", False)
    kinds = [len({record["width"] > record["height"] for record in batch}) for batch in mixed]
    assert 2 in kinds


def test_orientation_is_read_from_the_image_header_when_unknown(tmp_path: Path) -> None:
    sizes = [(5, 3), (3, 5), (4, 4)]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("RGB", size).save(path)
    groups = AspectRatioGroups([{"file_name": str(path)} for path in paths])
    assert [groups(index) for index in range(3)] == [0, 1, 1]


def test_orientation_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    Image.new("RGB", (5, 3)).save(tmp_path / "turned.jpg", exif=exif)
    assert AspectRatioGroups([{"file_name": str(tmp_path / "turned.jpg")}])(0) == 1


def test_unreadable_image_header_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(OSError, match=r"image .*broken\.png cannot be read"):
        AspectRatioGroups([{"file_name": str(path)}])(0)


@pytest.mark.parametrize("grouping", [True, False])
def test_later_start_gives_the_same_batches(grouping: bool) -> None:
    options = ("DATALOADER.ASPECT_RATIO_GROUPING", grouping)
    assert first_batches(4, *options, start_batch=5) == first_batches(9, *options)[5:]


def test_skipped_batches_are_not_loaded() -> None:
    loaded = []

    def note(record: dict[str, Any]) -> dict[str, Any]:
        loaded.append(record)
        return record

    batches = first_batches(1, start_batch=7, mapper=note)
    assert loaded == batches[0]


def test_worker_processes_change_nothing() -> None:
    assert first_batches(6, "DATALOADER.NUM_WORKERS", 2) == first_batches(6)


def test_another_seed_gives_another_order_and_other_augmentations() -> None:
    first, second = first_batches(6), first_batches(6, "SEED", 4)
    assert [[r["index"] for r in b] for b in first] != [[r["index"] for r in b] for b in second]


def test_one_image_is_augmented_differently_each_time() -> None:
    drawn: dict[int, set[tuple[float, ...]]] = {}
    for batch in first_batches(20):
        for record in batch:
            drawn.setdefault(record["index"], set()).add(record["drawn"])
    assert min(len(values) for values in drawn.values()) > 1


def test_loading_leaves_the_global_generators_alone() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = draw({})
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first_batches(3)
    assert draw({}) == expected


def test_rejected_records_are_replaced_the_same_way_every_time() -> None:
    batches = first_batches(6, mapper=refuse_odd)
    assert all(record["index"] % 2 == 0 for batch in batches for record in batch)
    assert first_batches(6, mapper=refuse_odd) == batches


def test_replacements_are_eligible() -> None:
    dataset = MappedRecords(records(20), refuse_odd, eligible=[6, 8], seed=0)
    assert {dataset[1, position]["index"] for position in range(20)} == {6, 8}


def test_mapper_that_rejects_everything_is_an_error() -> None:
    with pytest.raises(ValueError, match="rejected 1000 training records in a row"):
        first_batches(1, mapper=refuse_all)


def test_frequent_rare_category_with_repeat_factors() -> None:
    name = "loader_test_annotated"
    if name not in DatasetCatalog.list():
        annotated = [
            {**record, "annotations": [{"category_id": int(record["index"] == 0), "iscrowd": 0}]}
            for record in records(16)
        ]
        DatasetCatalog.register(name, lambda: annotated)
    options = ("DATASETS.TRAIN", (name,), "DATALOADER.REPEAT_THRESHOLD", 1.0)
    sampler = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    MetadataCatalog.get(name).set(thing_classes=["common", "rare"])
    drawn = [r["index"] for batch in first_batches(19, *options, *sampler) for r in batch]
    assert drawn.count(0) >= 3 * max(drawn.count(index) for index in range(1, 16)) / 2


def test_random_subset_sampler_draws_from_a_subset() -> None:
    options = ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    ratio = ("DATALOADER.RANDOM_SUBSET_RATIO", 0.25)
    batches = first_batches(20, *options, *ratio, mapper=refuse_odd)
    indices = {record["index"] for batch in batches for record in batch}
    assert indices == {index for index in random_subset(20, 0.25, 3) if index % 2 == 0}


@contextmanager
def dataset(*rows: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Options that train on records with these additions."""
    name = "loader_test_rows"
    made = [{**record, **row} for record, row in zip(records(len(rows)), rows, strict=True)]
    DatasetCatalog.register(name, lambda: made)
    try:
        yield "DATASETS.TRAIN", (name,), "DATALOADER.ASPECT_RATIO_GROUPING", False
    finally:
        DatasetCatalog.remove(name)


CROWD = {"annotations": [{"category_id": 0, "iscrowd": 1}]}
OBJECT = {"annotations": [{"category_id": 0, "iscrowd": 0}]}


@pytest.mark.parametrize("rows", [(CROWD, OBJECT, {}), ({}, OBJECT, CROWD, {"annotations": []})])
def test_records_without_objects_are_left_out_if_they_have_annotations(rows: tuple) -> None:
    with dataset(*rows) as options:
        drawn = {record["index"] for batch in first_batches(10, *options) for record in batch}
    assert drawn == {i for i, row in enumerate(rows) if row in (OBJECT, {})}


def test_dataset_of_crowds_alone_is_refused() -> None:
    with (
        dataset(CROWD, CROWD) as options,
        pytest.raises(ValueError, match=r"none of the 2 records.*loader_test_rows.*FILTER_EMPTY"),
    ):
        first_batches(1, *options)


def test_repeat_factors_need_annotations_in_every_record() -> None:
    sampler = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    with (
        dataset(OBJECT, {}, {}) as options,
        pytest.raises(ValueError, match=r"2 of 3 records.*loader_test_rows.*1\.png.*Training"),
    ):
        first_batches(1, *options, *sampler)


def test_empty_random_subset_is_refused() -> None:
    options = ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    with pytest.raises(ValueError, match=r"RANDOM_SUBSET_RATIO 0\.04 of 20 training records"):
        first_batches(1, *options, "DATALOADER.RANDOM_SUBSET_RATIO", 0.04)


def test_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="SAMPLER_TRAIN: 'Other'"):
        first_batches(1, "DATALOADER.SAMPLER_TRAIN", "Other")


def test_no_training_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN is empty"):
        first_batches(1, "DATASETS.TRAIN", ())


@pytest.mark.parametrize(("images", "processes"), [(5, 2), (1, 2), (0, 1)])
def test_batch_that_cannot_be_shared_is_refused(images: int, processes: int) -> None:
    with pytest.raises(ValueError, match=f"IMS_PER_BATCH={images} cannot be shared.*{processes}"):
        images_per_process(images, processes)


def _are_shared(records: list[Any]) -> list[bool]:
    fields = [record["instances"].get_fields().values() for record in batch_of(records)]
    tensors = [*(record["image"] for record in records), *itertools.chain.from_iterable(fields)]
    return [tensor.is_shared() for tensor in tensors]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_puts_tensors_into_shared_memory_itself(workers: int) -> None:
    """Where it reports that there is too little: the thread that sends them would not."""
    instances = Instances((4, 4), gt_classes=torch.zeros(2), gt_masks=torch.zeros(2, 4, 4))
    records = [{"image": torch.zeros(3, 4, 4), "instances": instances, "height": 4}] * 2
    loader = DataLoader(records, batch_size=2, num_workers=workers, collate_fn=_are_shared)
    (found,) = loader
    assert found == [workers > 0] * 6
