"""Sparse maps of one axis resize as PyTorch does."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.masks.resampling import Taps, resample


def matrix(taps: Taps) -> Tensor:
    """float64 [output, source]."""
    dense = torch.zeros(len(taps), taps.source, dtype=torch.float64)
    return dense.scatter_add_(1, taps.index, taps.weights)


@pytest.mark.parametrize("source", [1, 2, 5, 16])
@pytest.mark.parametrize("target", [1, 3, 16, 33])
def test_the_map_of_an_axis_is_that_of_interpolation(source: int, target: int) -> None:
    columns = torch.eye(source)[None, :, :]
    expected = torch.nn.functional.interpolate(columns, size=target, mode="linear")[0].T
    assert_close(matrix(Taps.bilinear(source, target)).float(), expected)


@pytest.mark.parametrize("sizes", [(6, 20, 7), (16, 64, 60), (9, 31, 24), (40, 32, 50), (1, 8, 3)])
def test_composition_is_the_product_of_matrices(sizes: tuple[int, int, int]) -> None:
    source, between, target = sizes
    first, second = Taps.bilinear(source, between), Taps.bilinear(between, target)
    assert_close(matrix(second.after(first)), matrix(second) @ matrix(first))
    cut = first[: between - between // 3]
    expected = matrix(second)[:, : len(cut)] @ matrix(cut)  # the rest is read as 0
    assert_close(matrix(second.after(cut)), expected)


@pytest.mark.parametrize("output", [(300, 500), (7, 9), (2, 400), (31, 1), (40, 60)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float32])
def test_maps_are_resampled_as_by_interpolation(
    output: tuple[int, int], dtype: torch.dtype
) -> None:
    maps = (torch.rand(3, 40, 60) * 2).to(dtype)
    taps = (Taps.bilinear(40, output[0]), Taps.bilinear(60, output[1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = resample(maps, *taps)
    assert_close(found, plain.resize(maps, output))


def test_only_unchanged_sizes_are_the_identity() -> None:
    assert Taps.bilinear(5, 5).is_identity
    assert Taps.bilinear(1, 1).is_identity
    assert not Taps.bilinear(5, 6).is_identity
    assert not Taps.bilinear(5, 5).flipped().is_identity
