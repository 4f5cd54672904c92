"""Datasets of records: shared memory for workers, mapping, batching by aspect ratio."""

import copy
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

__all__ = ["AspectRatioGroupedDataset", "DatasetFromList", "MapDataset"]

_MAX_FAILED_DRAWS = 1000


class DatasetFromList(Dataset[Any]):
    """A list as a dataset.

    Args:
        lst: the items.
        copy: return deep copies, which mappers may modify.
        serialize: store the items pickled in one array. Forked workers share its memory; a list of
            Python objects would be copied page by page as reference counts change.
    """

    def __init__(self, lst: list[Any], copy: bool = True, serialize: bool = True) -> None:
        self._copy = copy
        self._items: list[Any] | None = None if serialize else lst
        if serialize:
            pickled = [
                np.frombuffer(pickle.dumps(item, protocol=-1), dtype=np.uint8) for item in lst
            ]
            self._ends = np.cumsum([len(item) for item in pickled], dtype=np.int64)
            self._bytes = np.concatenate(pickled) if pickled else np.zeros(0, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) if self._items is None else len(self._items)

    def __getitem__(self, index: int) -> Any:
        if self._items is not None:
            return copy.deepcopy(self._items[index]) if self._copy else self._items[index]
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a dataset with {len(self)} items")
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]].tobytes())


class MapDataset(Dataset[Any]):
    """A dataset with a mapper applied to its items.

    Args:
        dataset: the items.
        map_func: the mapper. If it returns None, a random other item replaces this one.
    """

    def __init__(self, dataset: Dataset[Any], map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func
        self._random = random.Random(0)

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        """The mapped item; RuntimeError if the mapper returns None too many times in a row."""
        current = int(index)
        for draw in range(_MAX_FAILED_DRAWS):
            mapped = self._map_func(self._dataset[current])
            if mapped is not None:
                return mapped
            if draw == 2:
                logging.getLogger(__name__).warning(
                    "the mapper returned None for item %d and for its replacements", index
                )
            current = self._random.randrange(len(self))
        raise RuntimeError(
            f"the mapper returned None for {_MAX_FAILED_DRAWS} items in a row, starting with item "
            f"{index}"
        )


class AspectRatioGroupedDataset(IterableDataset[list[dict[str, Any]]]):
    """Batches whose images are either all in landscape format, or all not.

    Args:
        dataset: mapped records with ``width`` and ``height`` (of the original image).
        batch_size: images per batch; incomplete batches at the end are dropped.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        buckets: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for record in self.dataset:
            bucket = buckets[record["width"] > record["height"]]
            bucket.append(record)
            if len(bucket) == self.batch_size:
                batch = bucket[:]
                bucket.clear()
                yield batch
