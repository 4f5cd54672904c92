"""Exact answers about enlarged masks, without enlarging them.

A pixel of the enlarged image is a convex combination of few neighboring source pixels. When these
agree which of several linear scores is greatest, or on which side of a threshold they lie, so does
the pixel. The output is therefore cut into *cells*, rectangles whose pixels combine the same source
pixels (2 x 2 for bilinear resizing; 3 x 3 for masks that are resized twice). Cells whose corners
agree settle all their pixels; only the others, along the borders of regions, are interpolated.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskclippp.masks.batching import resize_bilinear
from maskclippp.masks.soft_masks import SoftMasks, Taps, apply_matrices, bilinear_matrix

# Numbers held at a time by what grows with the output: 64 MiB as float32.
_BUDGET = 16 * 2**20


@dataclass(frozen=True)
class _Axis:
    """Rows or columns: the cells, and the output positions in them.

    Attributes:
        taps: int64 [cells, T] the source positions that a cell combines; shorter cells repeat
            their last one.
        first, count: int64 [cells] a cell's output positions; at least one each.
        most: the largest count.
        cell: int64 [output] the cell of every output position.
        weights: float32 [output, T] of the taps; 0 for repeated ones.
    """

    taps: Tensor
    first: Tensor
    count: Tensor
    most: int
    cell: Tensor
    weights: Tensor

    @classmethod
    def of_matrix(cls, matrix: Tensor, device: torch.device) -> "_Axis":
        """From the linear map [output, source] of one axis; rows of neighboring weights."""
        taps = Taps.of_matrix(matrix)
        begins = torch.ones(len(matrix), dtype=torch.bool)
        begins[1:] = (taps.low[1:] != taps.low[:-1]) | (taps.high[1:] != taps.high[:-1])
        cell = begins.cumsum(0) - 1
        count = torch.bincount(cell)
        return cls(
            taps=taps.index[begins].to(device),
            first=(count.cumsum(0) - count).to(device),
            count=count.to(device),
            most=int(count.max()),
            cell=cell.to(device),
            weights=taps.weights.to(device),
        )

    def positions(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output positions in ``cells`` [n]: number and validity [n, most], weights [n, most, T].

        Shorter cells repeat their last position; the repetitions are not valid.
        """
        step = torch.arange(self.most, device=cells.device)
        last = self.count[cells, None] - 1
        positions = self.first[cells, None] + step.minimum(last)
        return positions, step <= last, self.weights[positions]

    def tap_sums(self) -> Tensor:
        """float32 [cells, T]: the weights of every tap, summed over the positions of a cell."""
        sums = self.weights.new_zeros(self.taps.shape)
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
    """Enlargement of maps [..., h, w] to [..., H, W], a linear map of each axis.

    Args:
        matrices: float64 [H, h] for rows and [W, w] for columns.
        device: where the maps are.
    """

    def __init__(self, matrices: Sequence[Tensor], device: torch.device) -> None:
        self.rows, self.columns = (_Axis.of_matrix(matrix, device) for matrix in matrices)

    @property
    def num_cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return len(self.rows.count), len(self.columns.count)

    def corners(self, maps: Tensor) -> Iterator[Tensor]:
        """What all cells take from maps [..., h, w], one tap [..., cells, cells] after another."""
        for row_taps in self.rows.taps.T:
            chosen = maps.index_select(-2, row_taps)
            for column_taps in self.columns.taps.T:
                yield chosen.index_select(-1, column_taps)

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

        They come in portions: ``cost`` numbers per pixel stay within the memory budget.
        """
        per_cell = self.rows.most * self.columns.most * cost
        for chosen in cells.nonzero().split(max(1, _BUDGET // per_cell)):
            index, row, column = chosen.unbind(dim=1)
            y, valid_rows, down = self.rows.positions(row)
            x, valid_columns, across = self.columns.positions(column)
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
        rows, columns = self.rows.taps[pixels.row], self.columns.taps[pixels.column]
        result = pixels.down.new_zeros(())
        for column_taps, across in zip(columns.T, pixels.across.unbind(-1), strict=True):
            at_column = pixels.down.new_zeros(())
            for row_taps, down in zip(rows.T, pixels.down.unbind(-1), strict=True):
                corner = take(row_taps * width + column_taps).float()
                at_column = at_column + corner[..., None] * down
            result = result + at_column[..., None] * across[:, None]
        return result


def reduce_masks(masks: SoftMasks, size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
    """Masks brought to ``size`` where they are larger; what remains is to enlarge them.

    Returns:
        values [Q, h, w], no larger than ``size``, and the matrices float64 [H, h] and [W, w] that
        bring their rows and columns to it.
    """
    smaller = min(masks.shape[0], size[0]), min(masks.shape[1], size[1])
    if masks.frame is None:
        values = masks.values
        # Rows and columns are resized independently of each other.
        if smaller != masks.shape:
            values = resize_bilinear(values.float(), smaller)
        return values, [bilinear_matrix(smaller[dim], size[dim]) for dim in (0, 1)]
    now, later = [], []
    for dim in (0, 1):
        matrix = masks.axis_matrix(dim, size[dim])
        identity = torch.eye(smaller[dim], dtype=torch.float64)
        shrinks = size[dim] < masks.shape[dim]
        now.append(matrix if shrinks else identity)
        later.append(identity if shrinks else matrix)
    if smaller == masks.shape:
        return masks.values, later
    return apply_matrices(masks.values, *now), later


def best_rows(
    score: Callable[[Tensor], Tensor],
    num_rows: int,
    masks: Tensor | SoftMasks,
    size: tuple[int, int],
) -> Tensor:
    """int64 [H, W]: at every pixel the row with the greatest score, for masks resized to ``size``.

    Args:
        score: a linear map of mask values [n, Q] to scores [n, ``num_rows``].
        num_rows: number of scores, at least one.
        masks: [Q, h, w]; bool or float.
        size: output height and width.
    """
    values, matrices = reduce_masks(SoftMasks.of(masks), size)
    grid = Upsampling(matrices, values.device)
    cost = len(values) + num_rows
    portions = values.flatten(1).split(max(1, _BUDGET // cost), dim=1)
    best = torch.cat([score(portion.t().float()).argmax(dim=1) for portion in portions])
    first, *others = grid.corners(best.view(values.shape[-2:]))
    result = grid.spread(first)
    unsettled = torch.zeros_like(first, dtype=torch.bool)
    for corner in others:
        unsettled |= corner != first
    for pixels in grid.pixels(unsettled[None], cost):
        at_pixels = grid.all_values(values, pixels).flatten(1)
        best = score(at_pixels.t()).argmax(dim=1)
        result[pixels.y, pixels.x] = best.view(pixels.valid.shape)
    return result


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
    masks: Tensor | SoftMasks, size: tuple[int, int], is_solid: Callable[[Tensor], Tensor]
) -> SolidParts:
    """The pixels where masks resized to ``size`` pass a threshold.

    They are counted in float32, also within autocast.

    Args:
        masks: [Q, h, w]; bool or float.
        size: output height and width.
        is_solid: comparison of mask values with a threshold.
    """
    masks = SoftMasks.of(masks)
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
    values, matrices = reduce_masks(masks, size)
    values = values.float()
    grid = Upsampling(matrices, values.device)
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
