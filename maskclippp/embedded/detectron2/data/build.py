"""Data loaders for training and evaluation."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from detectron2.config import CfgNode, configurable
from detectron2.data.catalog import DatasetCatalog
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList, MapDataset
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]

Record = dict[str, Any]
Mapper = Callable[[Record], Any]


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """A batch is the list of its items."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed Python, NumPy and torch in a loader's worker."""
    # initial_seed() already differs between workers, but NumPy and random do not use it.
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def get_detection_dataset_dicts(
    names: str | Iterable[str], filter_empty: bool = True
) -> list[Record]:
    """The records of one or several datasets, in order.

    Args:
        names: names in DatasetCatalog.
        filter_empty: drop records whose ``annotations`` are empty or only crowds. Records without
            this key (panoptic and semantic ones) are kept.

    Raises:
        KeyError: unknown dataset.
        AssertionError: a dataset is empty, or nothing is left after filtering.
    """
    names = [names] if isinstance(names, str) else list(names)
    assert names, "no dataset was named (DATASETS.TRAIN or DATASETS.TEST is empty)"
    records: list[Record] = []
    for name in names:
        of_dataset = DatasetCatalog.get(name)
        assert of_dataset, f"Dataset '{name}' is empty!"
        records.extend(of_dataset)
    if filter_empty and any("annotations" in record for record in records):
        kept = [record for record in records if _has_objects(record)]
        logging.getLogger(__name__).info(
            "Removed %d images with no usable annotations. %d images left.",
            len(records) - len(kept),
            len(kept),
        )
        records = kept
    assert records, f"No valid data found in {','.join(names)}."
    return records


def _has_objects(record: Record) -> bool:
    annotations = record.get("annotations")
    return annotations is None or any(entry.get("iscrowd", 0) == 0 for entry in annotations)


def build_batch_data_loader(
    dataset: Dataset[Any],
    sampler: Sampler[int],
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> Iterable[Any]:
    """Batches of this process from an endless sampler; incomplete ones are dropped.

    Args:
        total_batch_size: over all processes; their number must divide it.
        aspect_ratio_grouping: do not mix landscape images with others in a batch.

    Raises:
        AssertionError: the number of processes does not divide ``total_batch_size``.
    """
    world = comm.get_world_size()
    assert total_batch_size % world == 0, (
        f"Total batch size ({total_batch_size}) must be divisible by the number of gpus ({world})."
    )
    batch_size = total_batch_size // world
    if not aspect_ratio_grouping:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate_fn or trivial_batch_collator,
            drop_last=True,
            worker_init_fn=worker_init_reset_seed,
        )
    # Workers return single records, in the sampler's order; batches are formed here.
    stream = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_identity,
        worker_init_fn=worker_init_reset_seed,
    )
    batches = AspectRatioGroupedDataset(stream, batch_size)
    if collate_fn is None:
        return batches
    return DataLoader(batches, batch_size=None, collate_fn=collate_fn)


def _identity(item: Any) -> Any:
    return item


def _required(mapper: Mapper | None) -> Mapper:
    if mapper is None:
        raise ValueError(
            "this engine has no default mapper: pass mapper=, a function from a dataset record to "
            "the model's input"
        )
    return mapper


def _train_loader_from_config(
    cfg: CfgNode,
    mapper: Mapper | None = None,
    *,
    dataset: list[Record] | None = None,
    sampler: Sampler[int] | None = None,
) -> dict[str, Any]:
    mapper = _required(mapper)
    if dataset is None:
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
    return {
        "dataset": dataset,
        "mapper": mapper,
        "sampler": _training_sampler(cfg, dataset) if sampler is None else sampler,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


def _training_sampler(cfg: CfgNode, dataset: list[Record]) -> Sampler[int]:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset), seed=cfg.SEED)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
        return RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
    if name == "RandomSubsetTrainingSampler":
        return RandomSubsetTrainingSampler(
            len(dataset), cfg.DATALOADER.RANDOM_SUBSET_RATIO, seed_shuffle=cfg.SEED
        )
    raise ValueError(
        f"Unknown training sampler: DATALOADER.SAMPLER_TRAIN is {name!r}; this engine has "
        "TrainingSampler, RepeatFactorTrainingSampler and RandomSubsetTrainingSampler"
    )


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list[Record] | Dataset[Any],
    *,
    mapper: Mapper | None,
    sampler: Sampler[int] | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> Iterable[Any]:
    """An endless loader of the training batches of this process.

    Also takes a config: ``build_detection_train_loader(cfg, mapper=...)``.

    Args:
        dataset: records, or a map-style dataset.
        mapper: from a record to the model's input; None: no mapping.
        sampler: the order of the records; default: shuffled.
        total_batch_size: images per step, over all processes.
        aspect_ratio_grouping: as in :func:`build_batch_data_loader`.
        num_workers: worker processes; 0: load in this process.
        collate_fn: from a list of items to a batch; default: the list itself.
    """
    mapped = _map_dataset(dataset, mapper)
    if sampler is None:
        sampler = TrainingSampler(len(mapped))  # type: ignore[arg-type]
    return build_batch_data_loader(
        mapped,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
    )


def _map_dataset(dataset: list[Record] | Dataset[Any], mapper: Mapper | None) -> Dataset[Any]:
    items: Dataset[Any] = (
        DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
    )
    return items if mapper is None else MapDataset(items, mapper)


def _test_loader_from_config(
    cfg: CfgNode, dataset_name: str | list[str], mapper: Mapper | None = None
) -> dict[str, Any]:
    mapper = _required(mapper)
    dataset = get_detection_dataset_dicts(dataset_name, filter_empty=False)
    return {
        "dataset": dataset,
        "mapper": mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": InferenceSampler(len(dataset)),
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: list[Record] | Dataset[Any],
    *,
    mapper: Mapper | None,
    sampler: Sampler[int] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A loader that yields every record once over all processes, in order.

    Also takes a config: ``build_detection_test_loader(cfg, dataset_name, mapper=...)``. The
    arguments are those of :func:`build_detection_train_loader`; ``batch_size`` is per process.
    """
    mapped = _map_dataset(dataset, mapper)
    if sampler is None:
        sampler = InferenceSampler(len(mapped))  # type: ignore[arg-type]
    return DataLoader(
        mapped,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )
