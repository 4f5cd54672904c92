"""The loader of evaluation: every image once over all processes, in batches of similar size."""

from collections.abc import Callable
from typing import cast

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset, get_detection_dataset_dicts
from detectron2.data.samplers import InferenceSampler
from torch.utils.data import DataLoader

from maskclippp.data.loader import batch_of, image_size, pins_memory
from maskclippp.data.mappers.evaluation import EvaluationMapper
from maskclippp.errors import InputError
from maskclippp.records import Record


def build_test_loader(
    cfg: CfgNode, dataset_name: str, mapper: EvaluationMapper
) -> DataLoader[Record]:
    """A loader of this process's share of a dataset: batches of TEST.BATCH_SIZE mapped records.

    One by one they come in the order of the dataset; in batches, those of equal size together, the
    largest first, so that little is padded and too little memory shows at once.

    Raises:
        InputError: TEST.BATCH_SIZE is not positive.
    """
    batch_size = checked_batch_size(cfg)
    records = cast(list[Record], get_detection_dataset_dicts([dataset_name], filter_empty=False))
    share = list(InferenceSampler(len(records)))
    if batch_size > 1:
        share = largest_first(share, lambda index: mapper.output_size(*image_size(records[index])))
    return DataLoader(
        MapDataset(DatasetFromList(records, copy=False), mapper),
        batch_size=batch_size,
        sampler=share,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=batch_of,
        pin_memory=pins_memory(cfg),
    )


def checked_batch_size(cfg: CfgNode) -> int:
    """TEST.BATCH_SIZE; an InputError if it is not positive."""
    batch_size: int = cfg.TEST.BATCH_SIZE
    if batch_size < 1:
        raise InputError(f"TEST.BATCH_SIZE: expected a positive number, found {batch_size}")
    return batch_size


def largest_first(indices: list[int], size_of: Callable[[int], tuple[int, int]]) -> list[int]:
    """Indices in order of decreasing area; those of equal size are neighbors, as they came."""
    sizes = {index: size_of(index) for index in indices}
    return sorted(indices, key=lambda index: (-sizes[index][0] * sizes[index][1], sizes[index]))
