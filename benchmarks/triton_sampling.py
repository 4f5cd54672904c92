"""Deformable sampling by one Triton kernel: no table rows, weights or samples are stored."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _sum_samples(
    value: Any,
    sizes: Any,
    locations: Any,
    weights: Any,
    output: Any,
    queries: Any,
    cells: Any,
    heads: tl.constexpr,
    width: tl.constexpr,
    levels: tl.constexpr,
    points: tl.constexpr,
) -> None:
    """One program per image, query and head: the weighted sum of its samples."""
    bag = tl.program_id(0)
    lane = tl.arange(0, width)
    total = tl.full([width], 0.0, tl.float32)
    image, head = bag // (queries * heads), bag % heads
    for level in range(levels):
        rows = tl.load(sizes + level * 3)
        columns = tl.load(sizes + level * 3 + 1)
        first = tl.load(sizes + level * 3 + 2)
        base = value + ((image * cells + first) * heads + head) * width + lane
        for point in range(points):
            place = (bag * levels + level) * points + point
            weight = tl.load(weights + place).to(tl.float32)
            x = tl.load(locations + place * 2) * columns - 0.5
            y = tl.load(locations + place * 2 + 1) * rows - 0.5
            left, top = tl.floor(x), tl.floor(y)
            beside, below = x - left, y - top
            for down in tl.static_range(2):
                for right in tl.static_range(2):
                    row = top.to(tl.int32) + down
                    column = left.to(tl.int32) + right
                    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
                    share = tl.abs(1 - down - below) * tl.abs(1 - right - beside) * weight
                    cell = base + (row * columns + column) * heads * width
                    total += tl.load(cell, mask=inside, other=0.0).to(tl.float32) * share
    tl.store(output + bag * width + lane, total)


def by_triton(
    value: Tensor, sizes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """See ``sample_multi_scale``; D must be a power of 2, and there are no gradients."""
    batch, cells, heads, width = value.shape
    queries, levels, points = locations.shape[1], len(sizes), locations.shape[4]
    starts = [sum(h * w for h, w in sizes[:level]) for level in range(levels)]
    table = [[h, w, start] for (h, w), start in zip(sizes, starts, strict=True)]
    output = torch.empty(batch, queries, heads * width, device=value.device)
    _sum_samples[(batch * queries * heads,)](
        value.contiguous(),
        torch.tensor(table, dtype=torch.int32).to(value.device, non_blocking=True),
        locations.contiguous(),
        weights.contiguous(),
        output,
        queries,
        cells,
        heads,
        width,
        levels,
        points,
    )
    return output.to(value.dtype)
