"""The training loader, which chooses the records of a batch before it loads any.

A batch is a list of (record index, position in the global sample stream). The main process draws
these lists from detectron2's samplers; worker processes load them. A resumed run can therefore skip
past batches at no cost, and the position of a sample seeds its augmentation.
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MetadataCatalog,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from maskclippp.data.mappers import build_train_mapper
from maskclippp.data.mappers.train import TrainMapper
from maskclippp.errors import InputError
from maskclippp.files.images import read_image_size
from maskclippp.records import Record
from maskclippp.seeding import derive_seed, sample_seed, seeded_generators

Mapper = Callable[[Record], Record | None]


class Records(Protocol):
    """Records by index; each access returns a fresh copy that may be modified."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


MAX_REPLACEMENTS = 1000
logger = logging.getLogger(__name__)


def build_train_loader(
    cfg: CfgNode, mapper: Mapper | None = None, start_batch: int = 0
) -> DataLoader[Record]:
    """An endless loader of this rank's training batches: lists of mapped records.

    Args:
        mapper: record -> model input, or None to have another record take its place. Default: the
            mapper of the config.
        start_batch: number of batches to skip without loading them.

    Raises:
        InputError: DATASETS.TRAIN is empty, no record is left to train on, IMS_PER_BATCH is not
            divisible by the number of processes, or the sampler is unknown or does not fit the
            data.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty: name at least one training dataset")
    batch_size = images_per_process(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
    if mapper is None:
        mapper = build_train_mapper(cfg)
    found = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
    records = cast(list[Record], found)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = _without_empty(records, cfg.DATASETS.TRAIN)
    _check_learnable(records, mapper, cfg.DATASETS.TRAIN)
    for name in cfg.DATASETS.TEST:
        if MetadataCatalog.get(name).get("is_custom", False):
            DatasetCatalog.get(name)  # what is wrong with it is said now, not after training
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    sampler, eligible = _build_sampler(cfg, records, seed)
    stored_records = DatasetFromList(records, copy=False)
    groups = AspectRatioGroups(stored_records) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    return DataLoader(
        MappedRecords(stored_records, mapper, eligible, seed),
        batch_sampler=PositionedBatchSampler(
            sampler,
            batch_size=batch_size,
            group_of=groups,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            start_batch=start_batch,
        ),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=batch_of,
        pin_memory=pins_memory(cfg),
        # Its own generator, because creating an iterator must not advance the global one.
        generator=torch.Generator().manual_seed(derive_seed(seed)),
    )


class Batch(list[Record]):
    """Records of a batch, whose tensors, also those in ``Instances``, are moved together."""

    def move(self, place: Callable[[Tensor], Tensor]) -> "Batch":
        """Replace every tensor by what ``place`` makes of it."""
        for record in self:
            _move(cast(dict[str, Any], record), place)
        return self

    def pin_memory(self) -> "Batch":
        """Called by a loader with ``pin_memory``: copies to a GPU then need no wait."""
        return self.move(Tensor.pin_memory)


def _move(fields: dict[str, Any], place: Callable[[Tensor], Tensor]) -> None:
    for name, value in fields.items():
        if isinstance(value, Instances):
            _move(value.get_fields(), place)
        elif isinstance(value, Tensor):
            fields[name] = place(value)


def batch_of(records: list[Record]) -> Batch:
    """The records; in a worker process, their tensors are in shared memory.

    Sending the batch would move them there as well, but in a thread whose errors are lost: if
    /dev/shm is full, the main process would wait forever.
    """
    batch = Batch(records)
    return batch if get_worker_info() is None else batch.move(Tensor.share_memory_)


def pins_memory(cfg: CfgNode) -> bool:
    """Whether loaders pin the memory of their batches: for NVIDIA's and AMD's GPUs."""
    return torch.cuda.is_available() and str(cfg.MODEL.DEVICE).startswith("cuda")


def images_per_process(images_per_batch: int, world_size: int) -> int:
    """The share of one process in a batch; an InputError if it is not a positive integer."""
    if images_per_batch < 1 or images_per_batch % world_size:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH={images_per_batch} cannot be shared equally by {world_size} "
            f"processes: choose a positive multiple of {world_size}"
        )
    return images_per_batch // world_size


def _without_empty(records: list[Record], names: Sequence[str]) -> list[Record]:
    """Leave out records whose ``annotations`` are empty or all crowds.

    Records without the key ``annotations`` (panoptic and semantic ones) are kept: their content is
    unknown until the mapper reads it.
    """
    kept = [
        record
        for record in records
        if "annotations" not in record
        or any(not annotation.get("iscrowd", 0) for annotation in record["annotations"])
    ]
    if not kept:
        raise InputError(
            f"none of the {len(records)} records of DATASETS.TRAIN {tuple(names)} has an object "
            "that is not a crowd; set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on all"
        )
    if len(kept) < len(records):
        logger.info(
            "%d of %d records have no object and are left out",
            len(records) - len(kept),
            len(records),
        )
    return kept


def _check_learnable(records: list[Record], mapper: Mapper, names: Sequence[str]) -> None:
    """Raise an InputError if the mapper learns single objects, and all of them are crowds."""
    key = mapper.target.objects_key if isinstance(mapper, TrainMapper) else None
    if key is None or any(key not in record for record in records):
        return  # the mapper says what such a record lacks
    objects = itertools.chain.from_iterable(cast(dict[str, Any], record)[key] for record in records)
    if all(entry.get("iscrowd", 0) for entry in objects):
        raise InputError(
            f"none of the {len(records)} records of DATASETS.TRAIN {tuple(names)} has an object "
            "that is not a crowd: nothing can be learned; single objects need iscrowd 0"
        )


def _build_sampler(
    cfg: CfgNode, records: list[Record], seed: int
) -> tuple[Sampler[int], list[int]]:
    """This rank's endless index stream, and all indices that can occur in it."""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    everything = list(range(len(records)))
    if name == "TrainingSampler":
        return TrainingSampler(len(records), seed=seed), everything
    if name == "RepeatFactorTrainingSampler":
        lacking = [record for record in records if "annotations" not in record]
        if lacking:
            raise InputError(
                "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler counts categories in the "
                f"'annotations' of every record, but {len(lacking)} of {len(records)} records of "
                f"DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} have none (the first is "
                f"{lacking[0].get('file_name', '(no file_name)')}); use TrainingSampler or an "
                "instance dataset"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            cast(list[dict[str, Any]], records),
            cfg.DATALOADER.REPEAT_THRESHOLD,
            sqrt=cfg.DATALOADER.REPEAT_SQRT,
        )
        return RepeatFactorTrainingSampler(factors, seed=seed), everything
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
        subset = random_subset(len(records), ratio, seed)
        sampler = RandomSubsetTrainingSampler(
            len(records), ratio, seed_shuffle=seed, seed_subset=seed
        )
        return sampler, subset
    raise InputError(
        f"DATALOADER.SAMPLER_TRAIN: {name!r} is not one of TrainingSampler, "
        "RepeatFactorTrainingSampler, RandomSubsetTrainingSampler"
    )


def random_subset(size: int, ratio: float, seed: int) -> list[int]:
    """The indices RandomSubsetTrainingSampler draws from; an InputError if there are none."""
    if int(size * ratio) < 1:
        raise InputError(
            f"DATALOADER.RANDOM_SUBSET_RATIO {ratio} of {size} training records leaves none; "
            f"choose at least {1 / size:.2g}"
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order[: int(size * ratio)].tolist()


def image_size(record: Record) -> tuple[int, int]:
    """Height and width of the image of a record, which are read from its header if need be."""
    if "width" in record and "height" in record:
        return record["height"], record["width"]
    return read_image_size(record["file_name"])


class AspectRatioGroups:
    """Index of a record -> 0 (wider than high) or 1, by the original size of its image.

    The size of an image is found once, on first use.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._groups = bytearray(b"\xff" * len(records))

    def __call__(self, index: int) -> int:
        if self._groups[index] == 0xFF:
            height, width = image_size(self._records[index])
            self._groups[index] = 0 if width > height else 1
        return self._groups[index]


class PositionedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (record index, position in the global sample stream), from an endless sampler.

    Args:
        group_of: index of a record -> its group; a batch is filled from a single group. None: no
            groups.
        start_batch: number of batches to skip at the beginning.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        *,
        batch_size: int,
        group_of: Callable[[int], int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
    ) -> None:
        self._sampler = sampler
        self._batch_size = batch_size
        self._group_of = group_of
        self._rank = rank
        self._world_size = world_size
        self._start_batch = start_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._batches(), self._start_batch, None)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        buckets: dict[int, list[tuple[int, int]]] = {}
        for count, index in enumerate(self._sampler):
            group = self._group_of(index) if self._group_of else 0
            bucket = buckets.setdefault(group, [])
            # The sampler yields every world_size-th element of the global stream, from rank on.
            bucket.append((index, self._rank + count * self._world_size))
            if len(bucket) == self._batch_size:
                yield buckets.pop(group)


class MappedRecords(Dataset[Record]):
    """(record index, stream position) -> the mapped record, with a seed derived from the position.

    If the mapper returns None, records drawn at random from ``eligible`` (with the same seed) take
    its place. The global random generators are left unchanged.
    """

    def __init__(self, records: Records, mapper: Mapper, eligible: list[int], seed: int) -> None:
        self._records = records
        self._mapper = mapper
        self._eligible = eligible
        self._seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, sample: tuple[int, int]) -> Record:
        index, position = sample
        seed = sample_seed(self._seed, position)
        replacements = random.Random(seed)
        with seeded_generators(seed):
            for _ in range(MAX_REPLACEMENTS):
                mapped = self._mapper(self._records[index])
                if mapped is not None:
                    return mapped
                index = replacements.choice(self._eligible)
        raise InputError(
            f"the mapper rejected {MAX_REPLACEMENTS} training records in a row, the last one of "
            f"image {self._records[index].get('file_name', '(no file_name)')}"
        )
