"""Labels and thresholds of resized masks are those of resizing them everywhere."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.masks import upsampling
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.upsampling import best_rows, compete, solid_parts

SIZES = [(24, 36), (96, 150), (71, 11), (5, 200), (9, 13), (1, 1)]
# Masks whose windows nearly all agree, rarely agree, and those for which resizing everywhere pays.
DETAIL = {"regions": 4, "soft": 2, "noise": 1}


@pytest.fixture(params=DETAIL)
def masks(request: pytest.FixtureRequest) -> SoftMasks:
    """Six masks of 24 x 36 with features of so many pixels."""
    pixels = DETAIL[request.param]
    coarse = torch.rand(1, 6, 24 // pixels, 36 // pixels)
    return SoftMasks(coarse[0].repeat_interleave(pixels, 1).repeat_interleave(pixels, 2))


def test_a_class_that_wins_only_between_source_pixels_is_found() -> None:
    """The second best of two disagreeing corners may be the best halfway."""
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    weights = torch.tensor([[1.0, 0.0, 0.7], [0.0, 1.0, 0.7]])
    best = best_rows(weights, SoftMasks(masks), (1, 8))
    assert best.tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


@pytest.mark.parametrize("size", SIZES)
def test_the_best_row_equals_the_definition(masks: SoftMasks, size: tuple[int, int]) -> None:
    weights = torch.randn(6, 7)  # scores may be negative

    best = best_rows(weights, masks, size)
    resized = plain.resize(masks.values, size)
    assert torch.equal(best, (resized.flatten(1).t() @ weights).argmax(dim=1).view(size))


@pytest.mark.parametrize("size", SIZES)
def test_solid_parts_equal_the_definition(masks: SoftMasks, size: tuple[int, int]) -> None:
    solid, resized = solid_parts(masks, size, 0.3), masks.resized(size)
    assert torch.equal(solid.binary, resized > 0.3)
    assert torch.equal(solid.area, (resized > 0.3).sum(dim=(1, 2)))
    assert_close(solid.mass, (resized * (resized > 0.3)).sum(dim=(1, 2)))


@pytest.mark.parametrize("size", SIZES)
def test_competition_equals_the_definition(masks: SoftMasks, size: tuple[int, int]) -> None:
    scores, resized = torch.rand(6), masks.resized(size)
    result, winner = compete(scores, masks, size), (scores[:, None, None] * resized).argmax(dim=0)
    assert torch.equal(result.winner, winner)
    assert torch.equal(result.is_solid, resized.gather(0, winner[None])[0] >= 0.5)
    assert torch.equal(result.solid_area, (resized >= 0.5).sum(dim=(1, 2)))


def test_masks_that_are_not_a_number_win_as_in_the_definition() -> None:
    values = torch.rand(4, 20, 20)
    values[2] = torch.nan
    best = best_rows(torch.rand(4, 5), SoftMasks(values), (70, 70))
    assert torch.equal(best, torch.zeros_like(best))


def test_values_that_are_not_a_number_stay_visible() -> None:
    """A score of 0 would hide them; other masks are as without them."""
    values, size, scores = torch.rand(4, 20, 20), (70, 70), torch.rand(4)
    others = torch.tensor([0, 1, 3])
    expected = solid_parts(SoftMasks(values[others]), size)
    values[2] = torch.nan
    found = solid_parts(SoftMasks(values), size)
    assert found.mass[2].isnan()
    assert torch.equal(found.mass[others], expected.mass)
    assert torch.equal(found.area[others], expected.area)
    values[2], values[2, 0, 0] = 1, torch.nan
    area = compete(scores, SoftMasks(values), size).solid_area
    assert 0 < area[2] < 70 * 70


@pytest.mark.parametrize("budget", [1, 300])
def test_portions_do_not_change_the_result(
    masks: SoftMasks, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torch.randn(6, 7)

    def results() -> list[Tensor]:
        solid = solid_parts(masks, (57, 85))
        best = best_rows(weights, masks, (57, 85))
        return [best, solid.binary, solid.area, solid.mass]

    at_once = results()
    monkeypatch.setattr(upsampling, "_BUDGET", budget)
    for whole, portioned in zip(at_once, results(), strict=True):
        assert_close(portioned, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_change_what_is_counted(dtype: torch.dtype) -> None:
    masks, size = torch.rand(2, 30, 40), (511, 4321)
    expected = solid_parts(SoftMasks(masks), size, 0.3)
    with torch.autocast("cpu", dtype=dtype):
        found = solid_parts(SoftMasks(masks), size, 0.3)
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
        best_rows(weights, SoftMasks(masks), (320, 320))
    assert largest <= 32 * 2**20


def test_a_mask_whose_greatest_value_is_the_threshold_is_solid_there() -> None:
    values = torch.full((2, 4, 4), 0.25)
    values[0, 1, 2] = 0.5
    result = compete(torch.tensor([1.0, 0.1]), SoftMasks(values), (4, 4))
    assert result.solid_area.tolist() == [1, 0]
    assert result.is_solid.sum() == 1


def test_denormal_numbers_are_zero_and_nothing_else_is() -> None:
    """They would make a CPU several times slower."""
    tiny = torch.finfo(torch.float32).tiny
    values = torch.tensor([tiny / 8, tiny * 2, 1e-20, 1.0]).view(1, 1, 4)
    weights = torch.tensor([[1.0, 0.0]])
    assert best_rows(weights, SoftMasks(values), (1, 4)).tolist() == [[0, 0, 0, 0]]
    assert solid_parts(SoftMasks(values), (1, 4), threshold=0.0).area.tolist() == [3]
