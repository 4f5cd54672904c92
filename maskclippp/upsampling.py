"""Exact answers about bilinearly enlarged masks, without enlarging them.

A pixel of the enlarged image is a convex combination of the four source pixels around it. When
these four agree which of several linear scores is greatest, or on which side of a threshold they
lie, so does the pixel. The source image is therefore cut into *cells*, the squares between the
centres of 2 x 2 source pixels. Cells whose corners agree settle all their pixels; only the others,
along the borders of regions, are interpolated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from maskclippp.batching import resize_bilinear

# Numbers held at a time by what grows with the output: 64 MiB as float32.
_BUDGET = 16 * 2**20


@dataclass(frozen=True)
class _Axis:
    """Rows or columns: the cells, and the output positions in them.

    Attributes:
        low, high: int64 [cells] the source positions that a cell lies between. The outermost
            cells lie between a position and itself; without enlargement all do.
        step: 1, or 0 without enlargement.
        first, count: int64 [cells] a cell's output positions; at least one each.
        most: the largest count.
        cell: int64 [output] the cell of every output position.
        fraction: float32 [output] the weight of ``high``.
    """

    low: Tensor
    high: Tensor
    step: int
    first: Tensor
    count: Tensor
    most: int
    cell: Tensor
    fraction: Tensor

    @classmethod
    def between(cls, source: int, output: int, device: torch.device) -> "_Axis":
        if source == output:
            cell = low = high = torch.arange(source)
            fraction = torch.zeros(output)
        else:
            centre = (torch.arange(output) + 0.5) * (source / output) - 0.5
            cell = centre.floor().long() + 1
            fraction = centre + 1 - cell
            low = (torch.arange(source + 1) - 1).clamp(min=0)
            high = torch.arange(source + 1).clamp(max=source - 1)
        count = torch.bincount(cell, minlength=len(low))
        return cls(
            low=low.to(device),
            high=high.to(device),
            step=int(source != output),
            first=(count.cumsum(0) - count).to(device),
            count=count.to(device),
            most=int(count.max()),
            cell=cell.to(device),
            fraction=fraction.to(device),
        )

    def positions(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output positions in ``cells`` [n]: number, fraction and validity, [n, most] each.

        Shorter cells repeat their last position; the repetitions are not valid.
        """
        step = torch.arange(self.most, device=cells.device)
        last = self.count[cells, None] - 1
        positions = self.first[cells, None] + step.minimum(last)
        return positions, self.fraction[positions], step <= last


@dataclass(frozen=True)
class CellPixels:
    """The pixels of n cells, at most a x b each; smaller cells repeat pixels to fill up.

    Attributes:
        index: int64 [n] number of the map that each cell is taken from.
        row, column: int64 [n] the cell.
        y, x: int64 [n, a, 1] and [n, 1, b] output rows and columns.
        down, across: float32 [n, a, 1] and [n, 1, b] weights of the lower and the right corners.
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
    """Bilinear, not corner-aligned enlargement of maps [..., h, w] to [..., H, W].

    Args:
        source: (h, w).
        output: (H, W), neither smaller than in ``source``.
        device: where the maps are.
    """

    def __init__(
        self, source: tuple[int, int], output: tuple[int, int], device: torch.device
    ) -> None:
        self.rows = _Axis.between(source[0], output[0], device)
        self.columns = _Axis.between(source[1], output[1], device)

    def corners(self, maps: Tensor) -> list[Tensor]:
        """Upper left, upper right, lower left, lower right corner of all cells of [..., h, w]."""
        maps = _repeat_edges(_repeat_edges(maps, -2, self.rows), -1, self.columns)
        return [
            maps.narrow(-2, down, len(self.rows.low)).narrow(-1, across, len(self.columns.low))
            for down in (0, self.rows.step)
            for across in (0, self.columns.step)
        ]

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
            self._corner_weight(lower, right) for lower in (False, True) for right in (False, True)
        )
        for corner, weight in zip(self.corners(maps), weights, strict=True):
            total += (corner * cells).flatten(1) @ weight.flatten()
        return total

    def _corner_weight(self, lower: bool, right: bool) -> Tensor:
        """Interpolation weights of one corner, summed over the pixels of every cell."""
        sums = []
        for axis, far in ((self.rows, lower), (self.columns, right)):
            weight = axis.fraction if far else 1 - axis.fraction
            sums.append(weight.new_zeros(len(axis.count)).index_add_(0, axis.cell, weight))
        return sums[0][:, None] * sums[1]

    def pixels(self, cells: Tensor, cost: int) -> Iterator[CellPixels]:
        """The pixels of the chosen cells, bool [Q, cells, cells].

        They come in portions: ``cost`` numbers per pixel stay within the memory budget.
        """
        per_cell = self.rows.most * self.columns.most * cost
        for chosen in cells.nonzero().split(max(1, _BUDGET // per_cell)):
            index, row, column = chosen.unbind(dim=1)
            y, down, valid_rows = self.rows.positions(row)
            x, across, valid_columns = self.columns.positions(column)
            yield CellPixels(
                index=index,
                row=row,
                column=column,
                y=y[:, :, None],
                x=x[:, None],
                down=down[:, :, None],
                across=across[:, None],
                valid=valid_rows[:, :, None] & valid_columns[:, None],
            )

    def values(self, maps: Tensor, pixels: CellPixels) -> Tensor:
        """float [n, a, b]: the enlarged ``maps`` [Q, h, w], every cell in its own map."""
        height, width = maps.shape[-2:]
        start = pixels.index * (height * width)
        corners = [maps.flatten()[start + place] for place in self._places(pixels, width)]
        return _interpolate(corners, pixels)

    def all_values(self, maps: Tensor, pixels: CellPixels) -> Tensor:
        """float [Q, n, a, b]: all enlarged ``maps`` [Q, h, w] at the pixels."""
        flat, width = maps.flatten(1), maps.shape[-1]
        corners = [flat.index_select(1, place) for place in self._places(pixels, width)]
        return _interpolate(corners, pixels)

    def _places(self, pixels: CellPixels, width: int) -> list[Tensor]:
        """Flat source positions [n] of the four corners."""
        return [
            rows[pixels.row] * width + columns[pixels.column]
            for rows in (self.rows.low, self.rows.high)
            for columns in (self.columns.low, self.columns.high)
        ]


def _repeat_edges(maps: Tensor, dim: int, axis: _Axis) -> Tensor:
    """Maps with a copy of the first and of the last row or column around, if it is enlarged."""
    if axis.step == 0:
        return maps
    last = maps.shape[dim] - 1
    return torch.cat([maps.narrow(dim, 0, 1), maps, maps.narrow(dim, last, 1)], dim=dim)


def _interpolate(corners: list[Tensor], pixels: CellPixels) -> Tensor:
    """Corner values [..., n] -> values at the pixels [..., n, a, b]."""
    upper_left, upper_right, lower_left, lower_right = (
        corner.float()[..., None, None] for corner in corners
    )
    upper = torch.lerp(upper_left, upper_right, pixels.across)
    lower = torch.lerp(lower_left, lower_right, pixels.across)
    return torch.lerp(upper, lower, pixels.down)


def shrink(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks [Q, h, w] brought to ``size`` where they are larger; what remains is to enlarge."""
    height, width = masks.shape[-2:]
    smaller = min(height, size[0]), min(width, size[1])
    # Rows and columns are resized independently of each other.
    return masks if smaller == (height, width) else resize_bilinear(masks.float(), smaller)


def best_rows(
    score: Callable[[Tensor], Tensor], num_rows: int, masks: Tensor, size: tuple[int, int]
) -> Tensor:
    """int64 [H, W]: at every pixel the row with the greatest score, for masks resized to ``size``.

    Args:
        score: a linear map of mask values [n, Q] to scores [n, ``num_rows``].
        num_rows: number of scores, at least one.
        masks: [Q, h, w]; bool or float.
        size: output height and width.
    """
    masks = shrink(masks, size)
    grid = Upsampling((masks.shape[-2], masks.shape[-1]), size, masks.device)
    cost = len(masks) + num_rows
    portions = masks.flatten(1).split(max(1, _BUDGET // cost), dim=1)
    best = torch.cat([score(portion.t().float()).argmax(dim=1) for portion in portions])
    first, *others = grid.corners(best.view(masks.shape[-2:]))
    result = grid.spread(first)
    unsettled = torch.stack([corner != first for corner in others]).any(dim=0)
    for pixels in grid.pixels(unsettled[None], cost):
        values = grid.all_values(masks, pixels).flatten(1)
        best = score(values.t()).argmax(dim=1)
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
    masks: Tensor, size: tuple[int, int], is_solid: Callable[[Tensor], Tensor]
) -> SolidParts:
    """The pixels where masks resized to ``size`` pass a threshold.

    Args:
        masks: [Q, h, w]; bool or float.
        size: output height and width.
        is_solid: comparison of mask values with a threshold.
    """
    # A few masks at a time: floats of all of them could fill the memory.
    portions = masks.split(max(1, _BUDGET // (masks.shape[-2] * masks.shape[-1])))
    parts = [_solid_parts(portion, size, is_solid) for portion in portions]
    return SolidParts(
        binary=torch.cat([part.binary for part in parts]),
        area=torch.cat([part.area for part in parts]),
        mass=torch.cat([part.mass for part in parts]),
    )


def _solid_parts(
    masks: Tensor, size: tuple[int, int], is_solid: Callable[[Tensor], Tensor]
) -> SolidParts:
    masks = shrink(masks, size).float()
    grid = Upsampling((masks.shape[-2], masks.shape[-1]), size, masks.device)
    one, *others = grid.corners(is_solid(masks))
    settled, unsettled = one.clone(), one.clone()
    for other in others:
        settled &= other
        unsettled |= other
    unsettled &= ~settled
    binary = grid.spread(settled)
    area, mass = grid.count_pixels(settled), grid.sum_pixels(settled, masks)
    for pixels in grid.pixels(unsettled, cost=8):
        values = grid.values(masks, pixels)
        solid = is_solid(values)
        binary[pixels.index[:, None, None], pixels.y, pixels.x] = solid
        solid &= pixels.valid
        area.index_add_(0, pixels.index, solid.sum(dim=(1, 2)))
        mass.index_add_(0, pixels.index, (values * solid).sum(dim=(1, 2)))
    return SolidParts(binary, area, mass)
