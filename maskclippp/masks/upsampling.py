"""Argmax and thresholds of resized masks, without holding all resized masks at a time.

The output is divided into tiles. The pixels of a tile are convex combinations of the few source
pixels that it reads, so that these bound the values of every mask in the tile. Only masks whose
bounds leave a result open are resized there, which are few of many. The resized values of a tile
stay in the cache of a CPU. What is linear in the masks, such as the scores of classes, is computed
from the source pixels, which are fewer, and then resized.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.masks.resampling import Taps
from maskclippp.masks.soft_masks import SoftMasks

# Resized numbers held at a time: 1 GiB as float32.
_BUDGET = 2**28
# The side of a tile in output pixels: of 32, 48, 64, 96 and 128 the fastest on a CPU. Elsewhere
# large tiles are; float32 counts the pixels of a tile up to 4096^2 exactly.
_CPU_SIDE, _MAX_SIDE = 64, 4096


@dataclass(frozen=True)
class _Piece:
    """A part of an axis: some outputs, the sources that they read, and the map between them.

    Attributes:
        matrix: [outputs, sources]; None where the outputs are fewer.
    """

    outputs: slice
    read: slice
    taps: Taps
    matrix: Tensor | None


@lru_cache(maxsize=32)  # for the next image
@torch.inference_mode(mode=False)  # training may need them after an evaluation
def _pieces(taps: Taps, side: int, device: torch.device) -> list[_Piece]:
    pieces = []
    for first in range(0, len(taps), side):
        outputs = slice(first, first + side)
        read, part = taps[outputs].cropped()
        matrix = part.matrix(device) if len(part) >= part.source else None
        pieces.append(_Piece(outputs, read, part, matrix))
    return pieces


@dataclass(frozen=True)
class _Tile:
    """A rectangle of the output.

    Attributes:
        values: float32 [Q, h, w], the part of the masks that it reads, already resized along an
            axis where the output has fewer pixels.
    """

    values: Tensor
    rows: _Piece
    columns: _Piece

    @classmethod
    def of(cls, masks: Tensor, rows: _Piece, columns: _Piece) -> "_Tile":
        """From masks [Q, h, w]."""
        values = masks[:, rows.read, columns.read].float()
        for piece, dim in ((rows, -2), (columns, -1)):
            if piece.matrix is None:
                values = piece.taps.apply(values, dim)
        if values.device.type == "cpu":  # on which denormal numbers are very slow
            values = F.threshold(values, torch.finfo(values.dtype).tiny, 0)
        return cls(values.contiguous(), rows, columns)

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns of the output."""
        return self.rows.outputs, self.columns.outputs

    @property
    def num_pixels(self) -> int:
        """Of the output."""
        return len(self.rows.taps) * len(self.columns.taps)

    def resized(self, maps: Tensor) -> Tensor:
        """Maps of the size of ``values`` [n, h, w] -> [n, H, W] of the tile."""
        if self.columns.matrix is not None:
            flat = maps.flatten(0, 1) @ self.columns.matrix.t()
            maps = flat.view(*maps.shape[:2], flat.shape[-1])
        return maps if self.rows.matrix is None else self.rows.matrix @ maps


def _tiles(masks: SoftMasks, size: tuple[int, int], maps_per_tile: int) -> Iterator[_Tile]:
    """All tiles of an output, with at most so many maps resized in each."""
    device = masks.values.device
    side = math.isqrt(_BUDGET // max(1, maps_per_tile))
    side = max(1, min(side, _CPU_SIDE if device.type == "cpu" else _MAX_SIDE))
    rows, columns = (_pieces(taps, side, device) for taps in masks.taps(size))
    for row in rows:
        for column in columns:
            yield _Tile.of(masks.values, row, column)


def _bounds(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value [n] that maps [n, h, w] can have when they are resized."""
    return maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))


def _indices(chosen: Tensor) -> Tensor:
    """int64 [n] of a bool [Q]; the host waits for a GPU, once per tile."""
    return chosen.nonzero()[:, 0]


def _rivals(low: Tensor, high: Tensor) -> Tensor:
    """Bool [n]: which of n maps may be the greatest somewhere, from their bounds."""
    return ~(high < low.amax())  # also where they are not a number


def best_rows(weights: Tensor, masks: SoftMasks, size: tuple[int, int]) -> Tensor:
    """int64 [H, W]: at every pixel the row with the greatest score.

    Definition::

        torch.einsum("qr,qhw->rhw", weights, masks.resized(size)).argmax(dim=0)

    Args:
        weights: float32 [Q, R] of Q masks in R scores.
        masks: Q masks.
        size: output height and width.
    """
    count = weights.shape[1]
    result = torch.empty(size, dtype=torch.int64, device=weights.device)
    with torch.autocast(weights.device.type, enabled=False):
        for tile in _tiles(masks, size, count):
            scores = weights.t() @ tile.values.flatten(1)
            scores = scores.view(count, *tile.values.shape[1:])
            index = _indices(_rivals(*_bounds(scores)))
            result[tile.area] = index[tile.resized(scores[index]).max(dim=0).indices]
    return result


@dataclass(frozen=True)
class Competition:
    """Which of Q masks resized to (H, W) wins a pixel.

    Attributes:
        winner: int64 [H, W].
        is_solid: bool [H, W], whether the winner reaches the threshold.
        solid_area: int64 [Q], number of pixels where a mask reaches it, won or not.
    """

    winner: Tensor
    is_solid: Tensor
    solid_area: Tensor


def compete(
    scores: Tensor, masks: SoftMasks, size: tuple[int, int], threshold: float = 0.5
) -> Competition:
    """Let masks compete for pixels; the greatest ``scores`` [Q] x mask wins. Q is at least 1."""
    device = scores.device
    winner = torch.empty(size, dtype=torch.int64, device=device)
    is_solid = torch.empty(size, dtype=torch.bool, device=device)
    solid_area = torch.zeros(len(masks), dtype=torch.int64, device=device)
    with torch.autocast(device.type, enabled=False):
        for tile in _tiles(masks, size, len(masks)):
            low, high = _bounds(tile.values)
            solid_area += (low >= threshold) * tile.num_pixels
            rivals = _rivals(low * scores, high * scores)
            crosses = ~(low >= threshold) & ~(high < threshold)  # also what is not a number
            index = _indices(rivals | crosses)
            resized = tile.resized(tile.values[index])
            solid = torch.ge(resized, threshold, out=torch.empty_like(resized))
            solid_area[index] += (solid.sum(dim=(1, 2)) * crosses[index]).long()
            place = _indices(rivals[index])
            chosen = index[place]
            best = (resized[place] * scores[chosen, None, None]).max(dim=0).indices
            winner[tile.area] = chosen[best]
            is_solid[tile.area] = solid.gather(0, place[best][None])[0] > 0
    return Competition(winner, is_solid, solid_area)


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


def solid_parts(masks: SoftMasks, size: tuple[int, int], threshold: float = 0.5) -> SolidParts:
    """The pixels where masks resized to ``size`` exceed a threshold; also within autocast."""
    device = masks.values.device
    binary = torch.zeros(len(masks), *size, dtype=torch.bool, device=device)
    area = torch.zeros(len(masks), dtype=torch.int64, device=device)
    # Sums of many pixels; Apple's GPUs have no double precision.
    exact = torch.float32 if device.type == "mps" else torch.float64
    mass = torch.zeros(len(masks), dtype=exact, device=device)
    with torch.autocast(device.type, enabled=False):
        for tile in _tiles(masks, size, len(masks)):
            _, high = _bounds(tile.values)
            index = _indices(~(high <= threshold))  # also what is not a number
            resized = tile.resized(tile.values[index])
            solid = torch.gt(resized, threshold, out=torch.empty_like(resized))
            binary[(index, *tile.area)] = solid.bool()
            area[index] += solid.sum(dim=(1, 2)).long()
            mass[index] += (resized * solid).sum(dim=(1, 2)).to(exact)
    return SolidParts(binary, area, mass.float())
