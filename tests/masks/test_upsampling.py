"""The shortcut through cells visits every pixel once and interpolates as PyTorch does."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.masks import upsampling
from maskclippp.masks.resampling import Taps
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.upsampling import Upsampling, best_rows, solid_parts

SIZES = [((4, 5), (16, 20)), ((7, 3), (20, 11)), ((1, 6), (9, 6)), ((5, 5), (5, 5))]


def grid(source: tuple[int, int], output: tuple[int, int]) -> Upsampling:
    rows, columns = (Taps.bilinear(*ends) for ends in zip(source, output, strict=True))
    return Upsampling(rows, columns, torch.device("cpu"))


def all_cells(of: Upsampling, num_maps: int) -> Tensor:
    return torch.ones((num_maps, *of.num_cells), dtype=torch.bool)


@pytest.mark.parametrize(("source", "output"), SIZES)
def test_all_cells_together_are_all_pixels(
    source: tuple[int, int], output: tuple[int, int]
) -> None:
    enlarge = grid(source, output)
    visits = torch.zeros(2, *output, dtype=torch.long)
    for pixels in enlarge.pixels(all_cells(enlarge, 2), cost=1):
        index = pixels.index[:, None, None].expand(pixels.valid.shape)
        place = (index * output[0] + pixels.y) * output[1] + pixels.x
        visits += torch.bincount(place[pixels.valid], minlength=visits.numel()).view_as(visits)
    assert (visits == 1).all()
    area = output[0] * output[1]
    assert enlarge.count_pixels(all_cells(enlarge, 2)).tolist() == [area, area]


@pytest.mark.parametrize(("source", "output"), SIZES)
def test_values_equal_bilinear_interpolation(
    source: tuple[int, int], output: tuple[int, int]
) -> None:
    maps, enlarge = torch.rand(3, *source), grid(source, output)
    expected, found = plain.resize(maps, output), torch.full((3, *output), float("nan"))
    for pixels in enlarge.pixels(all_cells(enlarge, 3), cost=1):
        found[pixels.index[:, None, None], pixels.y, pixels.x] = enlarge.values(maps, pixels)
    assert_close(found, expected)
    for pixels in enlarge.pixels(all_cells(enlarge, 1), cost=3):
        found[:, pixels.y, pixels.x] = enlarge.all_values(maps, pixels)
    assert_close(found, expected)


@pytest.mark.parametrize(("source", "output"), SIZES)
def test_sum_over_cells_equals_sum_over_pixels(
    source: tuple[int, int], output: tuple[int, int]
) -> None:
    maps, enlarge = torch.rand(3, *source), grid(source, output)
    cells = torch.rand(all_cells(enlarge, 3).shape) > 0.5
    expected = (plain.resize(maps, output) * enlarge.spread(cells)).sum(dim=(1, 2))
    assert_close(enlarge.sum_pixels(cells, maps), expected)
    counted = enlarge.spread(cells).sum(dim=(1, 2))
    assert torch.equal(enlarge.count_pixels(cells), counted)


def test_a_class_that_wins_only_between_source_pixels_is_found() -> None:
    """The second best of two disagreeing corners may be the best halfway."""
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    weights = torch.tensor([[1.0, 0.0, 0.7], [0.0, 1.0, 0.7]])
    best = best_rows(lambda values: values @ weights, 3, SoftMasks(masks), (1, 8))
    assert best.tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_scores_may_be_negative() -> None:
    masks, weights = torch.rand(4, 6, 6), torch.randn(4, 7)
    best = best_rows(lambda values: values @ weights, 7, SoftMasks(masks), (17, 25))
    scores = torch.einsum("qk,qhw->khw", weights, plain.resize(masks, (17, 25)))
    assert torch.equal(best, scores.argmax(dim=0))


@pytest.mark.parametrize("budget", [1, 300])
def test_portions_do_not_change_the_result(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, weights = torch.rand(4, 6, 6), torch.randn(4, 7)

    def results() -> list[Tensor]:
        solid = solid_parts(SoftMasks(masks), (17, 25), lambda values: values > 0.5)
        best = best_rows(lambda values: values @ weights, 7, SoftMasks(masks), (17, 25))
        return [best, solid.binary, solid.area, solid.mass]

    at_once = results()
    monkeypatch.setattr(upsampling, "_BUDGET", budget)
    for whole, portioned in zip(at_once, results(), strict=True):
        assert_close(portioned, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_change_what_is_counted(dtype: torch.dtype) -> None:
    masks, size = torch.rand(2, 30, 40), (511, 4321)
    expected = solid_parts(SoftMasks(masks), size, lambda values: values > 0.3)
    with torch.autocast("cpu", dtype=dtype):
        found = solid_parts(SoftMasks(masks), size, lambda values: values > 0.3)
    assert torch.equal(found.area, expected.area)
    assert_close(found.mass, expected.mass)


def test_memory_of_labels_does_not_grow_with_classes_times_pixels() -> None:
    """K x H x W floats would be 400 MB here; the largest tensor made stays far below."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    masks, weights = torch.rand(2, 8, 8), torch.rand(2, 1000)
    with Watch():
        best_rows(lambda values: values @ weights, 1000, SoftMasks(masks), (320, 320))
    assert largest <= 4 * upsampling._BUDGET
