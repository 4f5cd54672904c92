"""The training samplers: endless streams of indices that the ranks share.

All ranks compute the same stream from the same seed; of W ranks, rank r takes the elements r,
r + W, r + 2W, and so on. The stream does not depend on the number of ranks.
"""

import itertools
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from detectron2.utils import comm

__all__ = ["RandomSubsetTrainingSampler", "RepeatFactorTrainingSampler", "TrainingSampler"]


class _EndlessSampler(Sampler[int]):
    """Passes over the data, without end.

    Args:
        seed: determines the order; None: a random seed that all ranks share.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = comm.shared_random_seed() if seed is None else int(seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            yield from self._one_pass(generator).tolist()

    @abstractmethod
    def _one_pass(self, generator: torch.Generator) -> torch.Tensor:
        """The indices of one pass, int64 [n]."""


def _shuffled(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return indices[torch.randperm(len(indices), generator=generator)]


class TrainingSampler(_EndlessSampler):
    """Every index once per pass.

    Args:
        size: number of records.
        shuffle: a new random order in every pass; else 0, ..., size - 1.
        seed: determines the order; None: a random seed that all ranks share.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        if size <= 0:
            raise ValueError(f"a training sampler needs at least one record, got {size}")
        super().__init__(seed)
        self._indices = torch.arange(size)
        self._shuffle = shuffle

    def _one_pass(self, generator: torch.Generator) -> torch.Tensor:
        return _shuffled(self._indices, generator) if self._shuffle else self._indices


class RandomSubsetTrainingSampler(TrainingSampler):
    """Every index of a fixed random subset once per pass.

    Args:
        size: number of records.
        subset_ratio: fraction of the records, in (0, 1].
        shuffle: a new random order in every pass.
        seed_shuffle: determines the order; None: a random seed that all ranks share.
        seed_subset: determines the subset; likewise.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        if not 0 < subset_ratio <= 1:
            raise ValueError(f"subset_ratio must be in (0, 1], got {subset_ratio}")
        if int(size * subset_ratio) < 1:
            raise ValueError(
                f"DATALOADER.RANDOM_SUBSET_RATIO: the fraction {subset_ratio} of {size} records is "
                "less than one record"
            )
        super().__init__(size, shuffle, seed_shuffle)
        generator = torch.Generator()
        generator.manual_seed(
            comm.shared_random_seed() if seed_subset is None else int(seed_subset)
        )
        self._indices = torch.randperm(size, generator=generator)[: int(size * subset_ratio)]


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Record i on average ``repeat_factors[i]`` times per pass (Gupta et al., LVIS, 2019).

    Args:
        repeat_factors: float [n], at least 0; randomly rounded up or down in every pass.
        shuffle: a new random order in every pass.
        seed: determines all of this; None: a random seed that all ranks share.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self._shuffle = shuffle
        self._whole = repeat_factors.floor()
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Repeat factors, float [n], which are larger for records with rare categories.

        The factor of a category that occurs in a fraction f of all records is
        max(1, sqrt(repeat_thresh / f)), without the root if not ``sqrt``. The factor of a record
        is the largest of its categories; without annotations it is 1.

        Raises:
            ValueError: a record has no ``annotations``.
        """
        lacking = [record for record in dataset_dicts if "annotations" not in record]
        if lacking:
            raise ValueError(
                "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler needs 'annotations' in every "
                f"record; {len(lacking)} of {len(dataset_dicts)} have none, the first is "
                f"{lacking[0].get('file_name', '(no file_name)')}"
            )
        categories_of_records = [
            {annotation["category_id"] for annotation in record["annotations"]}
            for record in dataset_dicts
        ]
        counts = Counter(itertools.chain.from_iterable(categories_of_records))
        total = len(dataset_dicts)

        def factor(category: int) -> float:
            ratio = repeat_thresh / (counts[category] / total)
            return max(1.0, math.sqrt(ratio) if sqrt else ratio)

        factors = {category: factor(category) for category in counts}
        return torch.tensor(
            [
                max((factors[category] for category in categories), default=1.0)
                for categories in categories_of_records
            ],
            dtype=torch.float32,
        )

    def _one_pass(self, generator: torch.Generator) -> torch.Tensor:
        chance = torch.rand(len(self._fraction), generator=generator)
        repeats = self._whole + (chance < self._fraction).float()
        indices = torch.repeat_interleave(torch.arange(len(repeats)), repeats.long())
        return _shuffled(indices, generator) if self._shuffle else indices
