"""Soft masks at the resolution at which they were found, and where the image lies in them.

A mask generator works on a padded batch and finds masks at a fraction of its size. By definition
they are enlarged to the padded size and the padding is cut off before anything else is done. All of
that is linear, and acts on rows and columns independently: it is kept as one matrix for each, and
applied together with whatever resizing comes next. Masks at full size are never made on the way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """Where the image lies in masks of a padded batch.

    Attributes:
        padded_size: height and width to which the masks are enlarged, in pixels of the generator.
        image_size: height and width of the upper left part of it that is the image.
    """

    padded_size: tuple[int, int]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class SoftMasks:
    """Masks of one image.

    Attributes:
        values: [Q, h, w], bool or in [0, 1].
        frame: where the image lies in them; None: they span exactly the image.
    """

    values: Tensor
    frame: Frame | None = None

    @classmethod
    def of(cls, masks: "Tensor | SoftMasks") -> "SoftMasks":
        """Take a tensor for masks that span the image."""
        return masks if isinstance(masks, SoftMasks) else cls(masks)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor) -> "SoftMasks":
        """The masks of an index, int64 or bool."""
        return SoftMasks(self.values[index], self.frame)

    def to(self, device: torch.device) -> "SoftMasks":
        """The same on a device."""
        return SoftMasks(self.values.to(device, non_blocking=True), self.frame)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the values."""
        return self.values.shape[-2], self.values.shape[-1]

    def axis_matrix(self, dim: int, size: int) -> Tensor:
        """float64 [size, h] or [size, w]: what brings rows (dim 0) or columns (1) to ``size``."""
        if self.frame is None:
            return bilinear_matrix(self.shape[dim], size)
        enlarge = bilinear_matrix(self.shape[dim], self.frame.padded_size[dim])
        image = self.frame.image_size[dim]
        return bilinear_matrix(image, size) @ enlarge[:image]

    def resized(self, size: tuple[int, int]) -> Tensor:
        """float32 [Q, H, W]."""
        return apply_matrices(self.values, *(self.axis_matrix(dim, size[dim]) for dim in (0, 1)))


def bilinear_matrix(source: int, target: int) -> Tensor:
    """float64 [target, source]: bilinear resizing of one axis, not corner-aligned."""
    center = ((torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5).clamp(0)
    low = center.long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    fraction = (center - low)[:, None]
    matrix = torch.zeros(target, source, dtype=torch.float64)
    matrix.scatter_add_(1, low[:, None], 1 - fraction)
    return matrix.scatter_add_(1, high[:, None], fraction)


@dataclass(frozen=True)
class Taps:
    """A linear map of one axis whose outputs combine few neighboring positions.

    Attributes:
        low, high: int64 [output] the first and the last source position used; 0 for none.
        index: int64 [output, T] source positions, those beyond ``high`` clamped to it.
        weights: float32 [output, T]; 0 beyond ``high``.
    """

    low: Tensor
    high: Tensor
    index: Tensor
    weights: Tensor

    @classmethod
    def of_matrix(cls, matrix: Tensor) -> "Taps":
        """From its matrix [output, source]."""
        used = matrix != 0
        source = torch.arange(matrix.shape[1])
        high = torch.where(used, source, 0).amax(dim=1)
        low = torch.where(used, source, matrix.shape[1]).amin(dim=1).minimum(high)
        index = low[:, None] + torch.arange(int((high - low).max()) + 1)
        beyond = index > high[:, None]
        index = index.minimum(high[:, None])
        weights = matrix.gather(1, index).masked_fill(beyond, 0).float()
        return cls(low, high, index, weights)


def apply_matrices(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps [..., h, w] -> float32 [..., H, W] by matrices [H, h] and [W, w]."""
    maps = maps.float()
    by_columns = (columns, -1), (rows, -2)
    by_rows = (rows, -2), (columns, -1)
    # The order decides how large the intermediate result is.
    rows_first = len(rows) * maps.shape[-1] <= len(columns) * maps.shape[-2]
    for matrix, dim in by_rows if rows_first else by_columns:
        maps = _apply_matrix(maps, matrix, dim)
    return maps


def _apply_matrix(maps: Tensor, matrix: Tensor, dim: int) -> Tensor:
    taps = Taps.of_matrix(matrix)
    shape = (-1,) if dim == -1 else (-1, 1)
    result = maps.new_zeros(())
    for index, weight in zip(taps.index.T, taps.weights.T, strict=True):
        neighbor = maps.index_select(dim, index.to(maps.device))
        result = result + neighbor * weight.to(maps.device).view(shape)
    return result
