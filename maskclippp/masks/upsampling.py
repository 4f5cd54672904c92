"""Argmax and thresholds of upsampled masks, computed exactly without materializing them.

A pixel of the upsampled image is a convex combination of a few neighboring source pixels. Where
these agree which of several linear scores is greatest, or on which side of a threshold they lie, so
does the pixel. The output is therefore cut into *cells*, rectangles whose pixels combine the same
source pixels (2 x 2 for bilinear resizing; 3 x 3 for masks that are resized twice). Cells whose
corners agree settle all their pixels; only the others, along the borders of regions, are
interpolated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from maskclippp.masks.resampling import Taps, resample
from maskclippp.masks.soft_masks import SoftMasks

# Numbers held at a time by whatever grows with the output: 64 MiB as float32.
_BUDGET = 16 * 2**20
# Relative cost per pixel and mask, measured on one CPU core: gathering one tap of an unsettled
# pixel, interpolating a pixel within a band of rows, and the share of one score.
_GATHER, _INTERPOLATE, _SCORE = 3, 8, 0.02


@dataclass(frozen=True)
class _Axis:
    """Rows or columns: the cells, and the output positions in them.

    Attributes:
        low: int64 [cells] the first of the T source positions that a cell combines.
        first, count: int64 [cells] a cell's output positions; at least one each.
        most: the largest count.
        usual: the largest count of cells that are not at an end of the axis.
        cell: int64 [output] the cell of every output position.
        weights: float32 [output, T] of the source positions.
        begin: ``low`` of the first cell, if every cell begins one position after the one before;
            else None.
    """

    low: Tensor
    first: Tensor
    count: Tensor
    most: int
    usual: int
    cell: Tensor
    weights: Tensor
    begin: int | None

    @classmethod
    def of(cls, taps: Taps, device: torch.device) -> "_Axis":
        """From the linear map of one axis."""
        low, cell, count = taps.low.unique_consecutive(return_inverse=True, return_counts=True)
        contiguous = bool((low.diff() == 1).all())
        return cls(
            low=low.to(device),
            first=(count.cumsum(0) - count).to(device),
            count=count.to(device),
            most=int(count.max()),
            usual=int(count[1:-1].max() if len(count) > 2 else count.max()),
            cell=cell.to(device),
            weights=taps.weights.float().to(device),
            begin=int(low[0]) if contiguous else None,
        )

    def corners(self, maps: Tensor, dim: int) -> Iterator[Tensor]:
        """What the cells take from maps along ``dim``, one tap after another; views if possible."""
        for tap in range(self.weights.shape[1]):
            if self.begin is None:
                yield maps.index_select(dim, self.low + tap)
            else:
                yield maps.narrow(dim, self.begin + tap, len(self.low))

    def positions(self, cells: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Output positions in ``cells`` [n] from the position number ``start`` of each on.

        Returns number and validity [n, usual], and weights [n, usual, T].

        Smaller cells repeat their last position; the repetitions are not valid.
        """
        step = torch.arange(start, start + self.usual, device=cells.device)
        last = self.count[cells, None] - 1
        positions = self.first[cells, None] + step.minimum(last)
        return positions, step <= last, self.weights[positions]

    def tap_sums(self) -> Tensor:
        """float32 [cells, T]: the weights of every tap, summed over the positions of a cell."""
        sums = self.weights.new_zeros(len(self.low), self.weights.shape[1])
        return sums.index_add_(0, self.cell, self.weights)


@dataclass(frozen=True)
class CellPixels:
    """The pixels of n cells, at most a x b each; smaller cells repeat pixels to fill up.

    Attributes:
        index: int64 [n] number of the map that each cell is taken from.
        row, column: int64 [n] the cell.
        y, x: int64 [n, a, 1] and [n, 1, b] output rows and columns.
        down, across: float32 [n, a, T] and [n, b, T] weights of rows and columns of corners.
        valid: bool [n, a, b] False for repetitions.
    """

    index: Tensor
    row: Tensor
    column: Tensor
    y: Tensor
    x: Tensor
    down: Tensor
    across: Tensor
    valid: Tensor


class Upsampling:
    """The cells of maps [..., h, w] that are upsampled to [..., H, W].

    Args:
        rows, columns: the linear maps of the two axes.
        device: where the maps are.
    """

    def __init__(self, rows: Taps, columns: Taps, device: torch.device) -> None:
        self.rows, self.columns = _Axis.of(rows, device), _Axis.of(columns, device)

    @property
    def num_cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return len(self.rows.count), len(self.columns.count)

    def corners(self, maps: Tensor) -> Iterator[Tensor]:
        """What all cells take from maps [..., h, w], one tap [..., cells, cells] after another."""
        for chosen in self.rows.corners(maps, -2):
            yield from self.columns.corners(chosen, -1)

    def spread(self, cells: Tensor) -> Tensor:
        """Give all pixels the value of their cell: [..., cells, cells] -> [..., H, W]."""
        return cells.index_select(-1, self.columns.cell).index_select(-2, self.rows.cell)

    def count_pixels(self, cells: Tensor) -> Tensor:
        """int64 [Q]: number of pixels of the chosen cells, bool [Q, cells, cells]."""
        per_row = cells.float() @ self.columns.count.float()
        return (per_row.long() * self.rows.count).sum(dim=1)

    def sum_pixels(self, cells: Tensor, maps: Tensor) -> Tensor:
        """float [Q]: sum of the enlarged ``maps`` [Q, h, w] over the pixels of chosen cells."""
        total = maps.new_zeros(len(maps))
        weights = (
            down[:, None] * across
            for down in self.rows.tap_sums().T
            for across in self.columns.tap_sums().T
        )
        for corner, weight in zip(self.corners(maps), weights, strict=True):
            total += (corner * cells).flatten(1) @ weight.flatten()
        return total

    def pixels(self, cells: Tensor, cost: int) -> Iterator[CellPixels]:
        """The pixels of the chosen cells, bool [Q, cells, cells].

        They come in portions: ``cost`` numbers per pixel stay within the memory budget. Cells at
        the border of the image are larger: what exceeds the usual size comes in further portions.
        """
        chosen = cells.nonzero()
        for top in range(0, self.rows.most, self.rows.usual):
            for left in range(0, self.columns.most, self.columns.usual):
                large_enough = self.rows.count[chosen[:, 1]] > top
                large_enough &= self.columns.count[chosen[:, 2]] > left
                yield from self._portions(chosen[large_enough], top, left, cost)

    def _portions(self, cells: Tensor, top: int, left: int, cost: int) -> Iterator[CellPixels]:
        per_cell = self.rows.usual * self.columns.usual * cost
        for chosen in cells.split(max(1, _BUDGET // per_cell)):
            index, row, column = chosen.unbind(dim=1)
            y, valid_rows, down = self.rows.positions(row, top)
            x, valid_columns, across = self.columns.positions(column, left)
            yield CellPixels(
                index=index,
                row=row,
                column=column,
                y=y[:, :, None],
                x=x[:, None],
                down=down,
                across=across,
                valid=valid_rows[:, :, None] & valid_columns[:, None],
            )

    def values(self, maps: Tensor, pixels: CellPixels) -> Tensor:
        """float [n, a, b]: the enlarged ``maps`` [Q, h, w], every cell in its own map."""
        height, width = maps.shape[-2:]
        flat, start = maps.flatten(), pixels.index * (height * width)
        return self._interpolate(lambda place: flat[start + place], pixels, width)

    def all_values(self, maps: Tensor, pixels: CellPixels) -> Tensor:
        """float [Q, n, a, b]: all enlarged ``maps`` [Q, h, w] at the pixels."""
        flat = maps.flatten(1)
        return self._interpolate(lambda place: flat.index_select(1, place), pixels, maps.shape[-1])

    def _interpolate(
        self, take: Callable[[Tensor], Tensor], pixels: CellPixels, width: int
    ) -> Tensor:
        """Values at the pixels [..., n, a, b] from those at flat source positions [n]."""
        place = self.rows.low[pixels.row] * width + self.columns.low[pixels.column]
        result = pixels.down.new_zeros(())
        for right, across in enumerate(pixels.across.unbind(-1)):
            at_column = pixels.down.new_zeros(())
            for below, down in enumerate(pixels.down.unbind(-1)):
                corner = take(place + (below * width + right)).float()
                at_column = at_column + corner[..., None] * down
            result = result + at_column[..., None] * across[:, None]
        return result


def reduce_masks(masks: SoftMasks, size: tuple[int, int]) -> tuple[Tensor, Taps, Taps]:
    """Bring masks to ``size`` along the axes where they are larger.

    Returns:
        values [Q, h, w], no larger than ``size``, and the maps that bring their rows and columns
        to it.
    """
    now, later = [], []
    for source, target, taps in zip(masks.shape, size, masks.taps(size), strict=True):
        shrinks = target < source
        now.append(taps if shrinks else Taps.bilinear(source, source))
        later.append(Taps.bilinear(target, target) if shrinks else taps)
    values = masks.values
    if not all(taps.is_identity for taps in now):
        values = resample(values, *now)
    return values, later[0], later[1]


def best_rows(
    score: Callable[[Tensor], Tensor],
    num_rows: int,
    masks: SoftMasks,
    size: tuple[int, int],
) -> Tensor:
    """int64 [H, W]: at every pixel the row with the greatest score, for masks resized to ``size``.

    Args:
        score: a linear map of mask values [n, Q] to scores [n, ``num_rows``].
        num_rows: number of scores, at least one.
        masks: Q masks.
        size: output height and width.
    """
    values, rows, columns = reduce_masks(masks, size)
    grid = Upsampling(rows, columns, values.device)
    cost = len(values) + num_rows
    best = torch.empty(values.shape[-2:], dtype=torch.int64, device=values.device)
    flat = best.view(-1)
    for portion in torch.arange(flat.numel()).split(max(1, _BUDGET // cost)):
        span = slice(int(portion[0]), int(portion[-1]) + 1)
        flat[span] = score(values.flatten(1)[:, span].t().float()).argmax(dim=1)
    first, *others = grid.corners(best)
    unsettled = torch.zeros_like(first, dtype=torch.bool)
    for corner in others:
        unsettled |= corner != first
    share = int(grid.count_pixels(unsettled[None])) / (size[0] * size[1])
    by_pixels = _GATHER * (len(others) + 1) + _SCORE * num_rows
    if share * by_pixels > _INTERPOLATE + _SCORE * num_rows:
        return _best_rows_densely(score, cost, values, rows, columns)
    result = grid.spread(first)
    for pixels in grid.pixels(unsettled[None], cost):
        at_pixels = grid.all_values(values, pixels).flatten(1)
        result[pixels.y, pixels.x] = score(at_pixels.t()).argmax(dim=1).view(pixels.valid.shape)
    return result


def _best_rows_densely(
    score: Callable[[Tensor], Tensor], cost: int, values: Tensor, rows: Taps, columns: Taps
) -> Tensor:
    """The same by upsampling, a band of rows at a time."""
    step = max(1, _BUDGET // (cost * len(columns)))
    bands = []
    for first in range(0, len(rows), step):
        read, band_rows = rows[first : first + step].cropped()
        band = resample(values[:, read], band_rows, columns)
        best = score(band.flatten(1).t()).argmax(dim=1)
        bands.append(best.view(band.shape[-2:]))
    return torch.cat(bands)


@dataclass(frozen=True)
class SolidParts:
    """Where masks resized to (H, W) are solid.

    Attributes:
        binary: bool [Q, H, W].
        area: int64 [Q] number of solid pixels.
        mass: float32 [Q] sum of the mask over them.
    """

    binary: Tensor
    area: Tensor
    mass: Tensor


def solid_parts(
    masks: SoftMasks, size: tuple[int, int], is_solid: Callable[[Tensor], Tensor]
) -> SolidParts:
    """The pixels where masks resized to ``size`` pass a threshold.

    They are counted in float32, also within autocast.

    Args:
        masks: Q masks.
        size: output height and width.
        is_solid: comparison of mask values with a threshold.
    """
    # A few masks at a time: floats of all of them could fill the memory.
    portions = masks.values.split(max(1, _BUDGET // (masks.shape[0] * masks.shape[1])))
    with torch.autocast(masks.values.device.type, enabled=False):
        parts = [_solid_parts(SoftMasks(part, masks.frame), size, is_solid) for part in portions]
    return SolidParts(
        binary=torch.cat([part.binary for part in parts]),
        area=torch.cat([part.area for part in parts]),
        mass=torch.cat([part.mass for part in parts]),
    )


def _solid_parts(
    masks: SoftMasks, size: tuple[int, int], is_solid: Callable[[Tensor], Tensor]
) -> SolidParts:
    values, rows, columns = reduce_masks(masks, size)
    values = values.float()
    grid = Upsampling(rows, columns, values.device)
    one, *others = grid.corners(is_solid(values))
    settled, unsettled = one.clone(), one.clone()
    for other in others:
        settled &= other
        unsettled |= other
    unsettled &= ~settled
    binary = grid.spread(settled)
    area, mass = grid.count_pixels(settled), grid.sum_pixels(settled, values)
    for pixels in grid.pixels(unsettled, cost=8):
        at_pixels = grid.values(values, pixels)
        solid = is_solid(at_pixels)
        binary[pixels.index[:, None, None], pixels.y, pixels.x] = solid
        solid &= pixels.valid
        area.index_add_(0, pixels.index, solid.sum(dim=(1, 2)))
        mass.index_add_(0, pixels.index, (at_pixels * solid).sum(dim=(1, 2)))
    return SolidParts(binary, area, mass)
