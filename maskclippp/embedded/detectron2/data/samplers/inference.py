"""The sampler of evaluation."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from detectron2.utils import comm

__all__ = ["InferenceSampler"]


class InferenceSampler(Sampler[int]):
    """Every index exactly once over all ranks: contiguous blocks, the first ones longer by one."""

    def __init__(self, size: int) -> None:
        self._indices = self._get_local_indices(size, comm.get_world_size(), comm.get_rank())

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        length, longer = divmod(total_size, world_size)
        start = rank * length + min(rank, longer)
        return range(start, start + length + (rank < longer))

    def __iter__(self) -> Iterator[int]:
        yield from self._indices

    def __len__(self) -> int:
        return len(self._indices)
