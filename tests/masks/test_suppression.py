"""Of masks that overlap, the best is kept."""

import pytest
import torch

from maskclippp.masks.suppression import suppress


def stripes(*ranges: tuple[int, int]) -> torch.Tensor:
    columns = torch.arange(10)
    rows = [(columns >= start) & (columns < end) for start, end in ranges]
    return torch.stack(rows)[:, None].expand(-1, 4, -1)


@pytest.mark.parametrize(("max_iou", "kept"), [(0.0, [1]), (0.5, [1, 2]), (0.7, [1, 2, 0])])
def test_a_mask_that_overlaps_a_better_one_is_dropped(max_iou: float, kept: list[int]) -> None:
    masks = stripes((0, 4), (0, 6), (3, 9))  # IoU 4/6, 1/9 and 3/9
    assert suppress(masks, torch.tensor([0.1, 0.9, 0.5]), max_iou).tolist() == kept


def test_masks_of_one_pixel_overlap_completely() -> None:
    masks = torch.zeros(2, 4, 5).bool()
    masks[:, 1, 1] = True
    assert suppress(masks, torch.tensor([0.1, 0.9]), 0.9).tolist() == [1]


def test_a_dropped_mask_drops_no_others() -> None:
    masks = stripes((0, 4), (2, 6), (4, 8))
    assert suppress(masks, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]


def test_many_masks_equal_a_loop_over_pairs() -> None:
    masks, scores = torch.rand(600, 5, 5) > 0.4, torch.rand(600)
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        overlaps = [
            (masks[index] & masks[other]).sum() / (masks[index] | masks[other]).sum()
            for other in kept
        ]
        if all(overlap <= 0.5 for overlap in overlaps):
            kept.append(index)
    assert suppress(masks, scores, 0.5).tolist() == kept


def test_no_masks_and_empty_masks_are_accepted() -> None:
    assert suppress(torch.zeros(0, 4, 5).bool(), torch.zeros(0), 0.5).tolist() == []
    assert suppress(torch.zeros(2, 4, 5).bool(), torch.tensor([0.1, 0.2]), 0.5).tolist() == [1, 0]
