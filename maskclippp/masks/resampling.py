"""Bilinear resizing of maps: one sparse linear map for the rows and one for the columns."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from maskclippp.devices import copied_to

# Images have few sizes: their maps, and the copies on devices, are kept for the next image.
_KEPT = 512
# Outputs per matrix product on a CPU: the sources of a block are a narrow band.
_CPU_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Taps:
    """A linear map of one axis; every output combines T neighboring source positions.

    Attributes:
        source: number of source positions.
        low: int64 [output], on the CPU: the first of the T positions.
        weights: float64 [output, T], on the CPU; 0 where a position is not used.
    """

    source: int
    low: Tensor
    weights: Tensor

    @classmethod
    @lru_cache(maxsize=_KEPT)
    @torch.inference_mode(mode=False)  # training may need it after an evaluation
    def bilinear(cls, source: int, target: int) -> "Taps":
        """Bilinear resizing, not corner-aligned and not antialiased."""
        center = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
        center = center.clamp(0)
        low = center.long().clamp(max=source - 1)
        high = (low + 1).clamp(max=source - 1)
        fraction = center - low
        return cls._merged(
            source, torch.stack([low, high], 1), torch.stack([1 - fraction, fraction], 1)
        )

    @classmethod
    def _merged(cls, source: int, index: Tensor, weights: Tensor) -> "Taps":
        """From source positions [output, n] and weights; a position may occur several times."""
        used = weights != 0
        high = torch.where(used, index, 0).amax(dim=1)
        low = torch.where(used, index, source - 1).amin(dim=1).minimum(high)
        width = int((high - low).max()) + 1
        # All outputs take the same number of positions, also at the end of the axis.
        low = low.clamp(max=source - width)
        merged = torch.zeros(len(low), width, dtype=torch.float64)
        offset = (index - low[:, None]).clamp(0, width - 1)
        return cls(source, low, merged.scatter_add_(1, offset, torch.where(used, weights, 0.0)))

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, outputs: slice) -> "Taps":
        """Some of the outputs."""
        return Taps(self.source, self.low[outputs], self.weights[outputs])

    def flipped(self) -> "Taps":
        """The outputs in reverse order."""
        return Taps(self.source, self.low.flip(0), self.weights.flip(0))

    def cropped(self) -> tuple[slice, "Taps"]:
        """The sources that are read, and the same map of these alone."""
        begin, end = int(self.low.min()), int(self.low.max()) + self.weights.shape[1]
        return slice(begin, end), Taps(end - begin, self.low - begin, self.weights)

    def after(self, first: "Taps") -> "Taps":
        """Apply ``first``, then this map; sources beyond the outputs of ``first`` are 0."""
        return _composed(self, first)

    @cached_property
    def index(self) -> Tensor:
        """int64 [output, T]: the source positions."""
        return self.low[:, None] + torch.arange(self.weights.shape[1])

    @cached_property
    def is_identity(self) -> bool:
        """Whether the outputs are the sources."""
        same_places = torch.equal(self.low, torch.arange(self.source))
        return same_places and self.weights.shape[1] == 1 and bool((self.weights == 1).all())

    def matrix(self, device: torch.device) -> Tensor:
        """float32 [output, source]: the same map with all of its zeros."""
        index, weights = _on_device(self, device)
        return weights.new_zeros(len(self), self.source).scatter_(1, index, weights)

    def apply(self, maps: Tensor, dim: int) -> Tensor:
        """Maps [N, h, w] of any type -> float32, along ``dim`` -1 or -2."""
        if self.is_identity:
            return maps.float()
        index, weights = _on_device(self, maps.device)
        if weights.numel() <= self.source:  # shrinking reads few positions
            weights = weights if dim == -1 else weights[..., None]
            taken = maps.index_select(dim, index.flatten())
            return (torch.unflatten(taken, dim, index.shape) * weights).sum(dim)
        maps = maps.float()
        matrix = self.matrix(maps.device)
        parts = []
        step = _CPU_BLOCK if maps.device.type == "cpu" else len(self)
        for start in range(0, len(self), step):
            block = slice(start, start + step)
            read, _ = self[block].cropped()
            if dim == -1:
                flat = maps.flatten(0, 1)[:, read] @ matrix[block, read].T
                parts.append(torch.unflatten(flat, 0, maps.shape[:2]))
            else:
                parts.append(matrix[block, read] @ maps[:, read])
        return torch.cat(parts, dim)


@lru_cache(maxsize=_KEPT)
@torch.inference_mode(mode=False)
def _composed(taps: Taps, first: Taps) -> Taps:
    """See :meth:`Taps.after`."""
    position = taps.index
    weights = taps.weights.masked_fill(position >= len(first), 0)
    position = position.clamp(max=len(first) - 1)
    index, products = first.index[position], weights[..., None] * first.weights[position]
    return Taps._merged(first.source, index.flatten(1), products.flatten(1))


@lru_cache(maxsize=_KEPT)
@torch.inference_mode(mode=False)
def _on_device(taps: Taps, device: torch.device) -> tuple[Tensor, Tensor]:
    """The index and, as float32, the weights; the host does not wait for the device."""
    index = copied_to(taps.index, device)
    return index, copied_to(taps.weights.float(), device)


def resample(maps: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Maps [N, h, w] of any type -> float32 [N, H, W], also within autocast."""
    # The order decides how large the intermediate result is.
    rows_first = len(rows) * columns.source <= len(columns) * rows.source
    with torch.autocast(maps.device.type, enabled=False):
        if rows_first:
            return columns.apply(rows.apply(maps, -2), -1)
        return rows.apply(columns.apply(maps, -1), -2)
