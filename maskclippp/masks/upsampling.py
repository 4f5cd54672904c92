"""Argmax and thresholds of resized masks, computed exactly without resizing them everywhere.

Masks are enlarged along the columns first, then along the rows. Along one axis an output is a
convex combination of a *window* of few neighboring sources. Where a window agrees which of several
linear scores is greatest, or on which side of a threshold its values lie, so do all outputs that
read it. Only the outputs of the other windows, along the borders of regions, are interpolated.
Masks with so much detail that windows rarely agree are resized everywhere, a portion at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from maskclippp.masks.resampling import Taps
from maskclippp.masks.soft_masks import SoftMasks

# Numbers held at a time by whatever grows with the output: 32 MiB as float32.
_BUDGET = 8 * 2**20
# The share of windows that disagree from which it is faster to resize everywhere, measured on one
# CPU core for labels and for thresholds.
_DENSE_LABELS, _DENSE_PARTS = 0.5, 0.2


def best_rows(
    score: Callable[[Tensor], Tensor],
    num_rows: int,
    masks: SoftMasks,
    size: tuple[int, int],
) -> Tensor:
    """int64 [H, W]: at every pixel the row with the greatest score, for masks resized to ``size``.

    By definition ``score(masks.resized(size).flatten(1).t()).argmax(dim=1).view(size)``.

    Args:
        score: a linear map of mask values [n, Q] to scores [n, ``num_rows``].
        num_rows: number of scores, at least one.
        masks: Q masks.
        size: output height and width.
    """
    labeling = _Labeling(score, max(1, _BUDGET // (len(masks) + num_rows)))
    values, rows, columns = masks.reduced(size)
    result = torch.empty(size, dtype=torch.int64, device=values.device)
    for band, values_band, rows_band in _bands(values, rows, len(columns)):
        result[band] = labeling.resized(values_band, rows_band, columns)
    return result


def _bands(values: Tensor, rows: Taps, width: int) -> Iterator[tuple[slice, Tensor, Taps]]:
    """Bands of output rows, the source rows that they read as floats, and the map of these."""
    # Enlarged along the columns, the sources of a band fit into the budget.
    cost = len(values) * width * values.shape[-2] / len(rows)
    step = int(max(1, _BUDGET // max(1, cost)))
    for first in range(0, len(rows), step):
        band = slice(first, first + step)
        read, rows_band = rows[band].cropped()
        yield band, values[:, read].float(), rows_band


@dataclass(frozen=True)
class _Labeling:
    """The best row at pixels; ``portion``: pixels that are scored at a time."""

    score: Callable[[Tensor], Tensor]
    portion: int

    def of(self, maps: Tensor) -> Tensor:
        """int64 [h, w] of masks [Q, h, w]."""
        portions = torch.split(maps.flatten(1), self.portion, dim=1)
        best = [self.score(portion.t()).max(dim=1).indices for portion in portions]
        return torch.cat(best).view(maps.shape[-2:])

    def resized(self, maps: Tensor, rows: Taps, columns: Taps) -> Tensor:
        """int64 [H, W] of masks [Q, h, w]."""
        labels, unsettled = _shared_labels(self.of(maps), columns, -1)
        if unsettled.float().mean() > _DENSE_LABELS:
            return self.of(rows.apply(columns.apply(maps, -1), -2))
        self._interpolate(labels, unsettled, maps, columns, -1)
        labels, unsettled = _shared_labels(labels, rows, -2)
        if unsettled.any():
            self._interpolate(labels, unsettled, columns.apply(maps, -1), rows, -2)
        return labels

    def _interpolate(
        self, labels: Tensor, unsettled: Tensor, maps: Tensor, taps: Taps, dim: int
    ) -> None:
        """Set the labels of unsettled pixels of ``maps`` that are resized along ``dim``."""
        low, weights = taps.low.to(maps.device), taps.weights.float().to(maps.device)
        width, flat = maps.shape[-1], maps.flatten(1)
        stride = 1 if dim == -1 else width
        for place in torch.split(unsettled.nonzero(), self.portion):
            row, column = place.unbind(1)
            position = place[:, dim]
            source = row * width + low[column] if dim == -1 else low[row] * width + column
            at_pixels = flat.new_zeros(())
            for tap, weight in enumerate(weights[position].unbind(1)):
                at_pixels = at_pixels + flat.index_select(1, source + tap * stride) * weight
            labels[row, column] = self.score(at_pixels.t()).max(dim=1).indices


def _shared_labels(labels: Tensor, taps: Taps, dim: int) -> tuple[Tensor, Tensor]:
    """Labels resized along ``dim`` by the first of every window; bool, where windows disagree."""
    low = taps.low.to(labels.device)
    first = labels.index_select(dim, low)
    unsettled = torch.zeros_like(first, dtype=torch.bool)
    for tap in range(1, taps.weights.shape[1]):
        unsettled |= labels.index_select(dim, low + tap) != first
    return first, unsettled


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
    values, rows, columns = masks.reduced(size)
    parts = SolidParts(
        binary=torch.empty(len(masks), *size, dtype=torch.bool, device=values.device),
        area=torch.zeros(len(masks), dtype=torch.int64, device=values.device),
        mass=torch.zeros(len(masks), device=values.device),
    )
    step = max(1, _BUDGET // (values.shape[-2] * size[1]))
    with torch.autocast(values.device.type, enabled=False):
        for first in range(0, len(masks), step):
            some = slice(first, first + step)
            part = SolidParts(parts.binary[some], parts.area[some], parts.mass[some])
            _find_solid_parts(part, columns.apply(values[some], -1), rows, is_solid)
    return parts


def _find_solid_parts(
    parts: SolidParts, maps: Tensor, rows: Taps, is_solid: Callable[[Tensor], Tensor]
) -> None:
    """Fill in the parts of masks [Q, h, W] whose rows are still to be resized."""
    num_windows = rows.source - rows.weights.shape[1] + 1
    windows = range(rows.weights.shape[1])
    solid = is_solid(maps)
    settled, unsettled = solid[:, :num_windows].clone(), solid[:, :num_windows].clone()
    for tap in windows[1:]:
        settled &= solid[:, tap : tap + num_windows]
        unsettled |= solid[:, tap : tap + num_windows]
    unsettled &= ~settled
    if unsettled.float().mean() > _DENSE_PARTS:
        resized = rows.apply(maps, -2)
        parts.binary.copy_(is_solid(resized))
        parts.area.copy_(parts.binary.float().sum(dim=2).long().sum(dim=1))
        parts.mass.copy_((resized * parts.binary).sum(dim=(1, 2)))
        return
    low, weights = rows.low.to(maps.device), rows.weights.float().to(maps.device)
    torch.index_select(settled, 1, low, out=parts.binary)
    count = torch.bincount(low, minlength=num_windows)
    weight_sums = weights.new_zeros(num_windows, len(windows)).index_add_(0, low, weights)
    inside = settled.float()
    parts.area.copy_((inside.sum(dim=2).long() * count).sum(dim=1))
    # Sums of many pixels; Apple's GPUs have no double precision.
    exact = torch.float32 if maps.device.type == "mps" else torch.float64
    mass = weights.new_zeros(len(maps), dtype=exact)
    for tap in windows:
        in_rows = (inside * maps[:, tap : tap + num_windows]).sum(dim=2)
        mass += in_rows @ weight_sums[:, tap]
    index, window, column = unsettled.nonzero().unbind(dim=1)
    source = (index * rows.source + window) * maps.shape[-1] + column
    corners = torch.stack([maps.flatten()[source + tap * maps.shape[-1]] for tap in windows])
    last = count.cumsum(0) - 1
    for offset in range(int(count.max())):
        # Windows in the padding have no output rows; few have as many as the largest.
        has_row = count[window] > offset
        index, window, column = index[has_row], window[has_row], column[has_row]
        corners = corners[:, has_row]
        row = last[window] - offset
        at_pixels = (corners * weights[row].t()).sum(dim=0)
        found = is_solid(at_pixels)
        parts.binary[index, row, column] = found
        parts.area.index_add_(0, index, found.long())
        mass.index_add_(0, index, (at_pixels * found).to(exact))
    parts.mass.copy_(mass)
