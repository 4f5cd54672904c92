"""Deformable attention samples as its definition says, on any grid and in any precision."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.generators.mask2former.deformable_attention import (
    MultiScaleDeformableAttention,
    sample_multi_scale,
)

GRIDS = [[(3, 4)], [(1, 6), (5, 1), (1, 1)], [(2, 3), (7, 5)]]


def random_inputs(
    grid: list[tuple[int, int]], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations (some outside the maps) and weights: 2 images, 3 queries, 2 heads."""
    torch.manual_seed(0)
    cells = sum(height * width for height, width in grid)
    value = torch.randn(2, cells, 2, 3, dtype=dtype)
    locations = torch.rand(2, 3, 2, len(grid), 2, 2, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(2, 3, 2, len(grid), 2, dtype=dtype)
    return value, locations, weights


def pixel(feature_map: Tensor, row: int, column: int) -> Tensor:
    """Value of an [h, w, D] map at a cell, zero outside."""
    height, width, channels = feature_map.shape
    if 0 <= row < height and 0 <= column < width:
        return feature_map[row, column]
    return torch.zeros(channels)


def sample_one_by_one(
    value: Tensor, grid: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """The definition: four cells of each sampling point, one after the other."""
    images, queries, heads, _, points = weights.shape
    maps = value.split([height * width for height, width in grid], dim=1)
    output = torch.zeros(images, queries, heads, value.shape[-1])
    for image, query, head, level, point in torch.cartesian_prod(
        *(torch.arange(n) for n in (images, queries, heads, len(grid), points))
    ).tolist():
        height, width = grid[level]
        feature_map = maps[level][image, :, head].unflatten(0, (height, width))
        x, y = locations[image, query, head, level, point].tolist()
        x, y = x * width - 0.5, y * height - 0.5
        weight = weights[image, query, head, level, point]
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                share = (1 - abs(y - row)) * (1 - abs(x - column))
                sample = pixel(feature_map, row, column)
                output[image, query, head] += weight * share * sample
    return output.flatten(2)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_sampling_equals_its_definition(grid: list[tuple[int, int]]) -> None:
    value, locations, weights = random_inputs(grid)
    expected = sample_one_by_one(value, grid, locations, weights)
    assert_close(sample_multi_scale(value, grid, locations, weights), expected)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_gradients(grid: list[tuple[int, int]]) -> None:
    inputs = [tensor.requires_grad_() for tensor in random_inputs(grid, torch.float64)]
    assert torch.autograd.gradcheck(lambda v, x, w: sample_multi_scale(v, grid, x, w), inputs)


def test_gradient_at_a_cell_center_is_the_slope_to_the_next_cell() -> None:
    value = torch.tensor([1.0, 2.0, 5.0]).view(1, 3, 1, 1)
    location = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2).requires_grad_()
    output = sample_multi_scale(value, [(1, 3)], location, torch.ones(1, 1, 1, 1, 1))
    output.sum().backward()
    assert location.grad is not None
    assert_close(location.grad[..., 0].flatten(), torch.tensor([3 * (5.0 - 2.0)]))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e30])
def test_broken_locations_do_not_touch_other_queries(broken: float) -> None:
    grid = GRIDS[-1]
    value, locations, weights = random_inputs(grid)
    expected = sample_multi_scale(value, grid, locations, weights)
    locations[:, 0] = broken
    assert_close(sample_multi_scale(value, grid, locations, weights)[:, 1:], expected[:, 1:])


def test_maps_of_other_sizes_are_refused() -> None:
    value, locations, weights = random_inputs([(2, 3), (7, 5)])
    with pytest.raises(ValueError, match=r"hold 40 cells on 2 levels, found 41 cells"):
        sample_multi_scale(value, [(2, 3), (17, 2)], locations, weights)


def identity_attention(num_levels: int) -> MultiScaleDeformableAttention:
    """One head that returns the cell at the reference point."""
    attention = MultiScaleDeformableAttention(
        channels=2, num_levels=num_levels, num_heads=1, num_points=1
    )
    with torch.no_grad():
        attention.sampling_offsets.bias.zero_()
        attention.value_proj.weight.copy_(torch.eye(2))
        attention.output_proj.weight.copy_(torch.eye(2))
    return attention


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_stay_exact_under_autocast(dtype: torch.dtype) -> None:
    """Cell 2999 of 3000 cannot be addressed in half precision."""
    length = 3000
    source = torch.randn(1, length, 2)
    x = (torch.arange(length) + 0.5) / length
    reference = torch.stack([x, torch.full_like(x, 0.5)], dim=-1)[None, :, None]
    with torch.autocast("cpu", dtype=dtype):
        output = identity_attention(1)(torch.zeros_like(source), reference, source, [(1, length)])
    assert_close(output.float(), source, rtol=0.02, atol=0.02)


def test_evaluation_before_training_leaves_gradients_intact() -> None:
    attention = MultiScaleDeformableAttention(channels=4, num_levels=1, num_heads=2)
    tokens, reference, grid = torch.randn(1, 6, 4), torch.rand(1, 6, 1, 2), [(2, 3)]
    with torch.inference_mode():
        attention(tokens, reference, tokens, grid)
    attention(tokens, reference, tokens, grid).sum().backward()
    assert all(parameter.grad is not None for parameter in attention.parameters())


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="10 channels cannot be shared by 4 heads"):
        MultiScaleDeformableAttention(channels=10, num_levels=1, num_heads=4)
