"""Pairwise IoU of masks, and labels for generated masks."""

import pytest
import torch

from maskclippp.masks.overlap import label_by_overlap, mask_iou
from maskclippp.masks.soft_masks import SoftMasks
from tests.golden_cases import GoldenCase, cases

CLASSES = torch.tensor([7, 3])
IGNORED = 255


def columns(*spans: tuple[int, int]) -> torch.Tensor:
    """bool [n, 4, 10]: one mask of the columns start..stop-1 per span."""
    masks = torch.zeros(len(spans), 4, 10, dtype=torch.bool)
    for mask, (start, stop) in zip(masks, spans, strict=True):
        mask[:, start:stop] = True
    return masks


def label(
    found: torch.Tensor, truth: torch.Tensor, classes: torch.Tensor, ignored: int
) -> list[int]:
    labels: list[int] = label_by_overlap(SoftMasks(found), truth, classes, ignored).tolist()
    return labels


@pytest.mark.parametrize("case", cases("mask_iou"), ids=str)
def test_equals_the_recorded_values(case: GoldenCase) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    for name, expected in outputs.items():
        scale = float(name.split("scale")[1])
        iou = mask_iou(inputs["masks1"], inputs["masks2"], scale)
        torch.testing.assert_close(iou, expected, **case.info["tolerance"])


def test_no_masks_give_an_empty_matrix() -> None:
    masks = torch.ones(3, 8, 8, dtype=torch.bool)
    assert mask_iou(masks[:0], masks, 0.5).shape == (0, 3)


def test_the_mask_that_covers_most_gives_the_label() -> None:
    truth = columns((0, 5), (5, 9))
    found = columns((0, 4), (4, 9), (3, 6))
    assert label(found, truth, CLASSES, IGNORED) == [7, 3, 7]


def test_masks_may_have_another_resolution() -> None:
    truth = columns((0, 5), (5, 10)).repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    found = columns((0, 4), (6, 10))
    assert label(found, truth, CLASSES, IGNORED) == [7, 3]


def test_masks_mostly_on_void_are_ignored() -> None:
    truth = columns((0, 2), (2, 4))
    found = columns((2, 10), (1, 4), (9, 10))
    assert label(found, truth, CLASSES, IGNORED) == [IGNORED, 3, IGNORED]


def test_empty_masks_are_ignored() -> None:
    assert label(columns((3, 3)), columns((0, 5)), CLASSES[:1], 255) == [255]


def test_soft_masks_are_cut_at_one_half() -> None:
    soft = columns((0, 4)).float() * 0.6 + columns((4, 10)).float() * 0.4
    assert label(soft, columns((0, 5), (5, 9)), CLASSES, IGNORED) == [7]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shares_of_large_masks_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    truth = columns((0, 4), (4, 8)).repeat_interleave(100, dim=1).repeat_interleave(100, dim=2)
    found = columns((0, 10), (3, 10), (0, 5)).repeat_interleave(100, 1).repeat_interleave(100, 2)
    with torch.autocast("cpu", dtype=dtype):
        labels = label(found, truth, CLASSES, IGNORED)
    assert labels == [IGNORED, 3, 7]


def test_none_generated_or_none_annotated() -> None:
    assert label(columns(), columns((0, 5)), CLASSES[:1], IGNORED) == []
    assert label(columns((0, 5)), columns(), CLASSES[:0], IGNORED) == [IGNORED]


@pytest.mark.parametrize(("covered", "label"), [(2, -100), (3, 7)])
def test_a_label_needs_more_than_half_of_the_mask(covered: int, label: int) -> None:
    generated = SoftMasks(torch.ones(1, 1, 4))
    truth = (torch.arange(4) < covered)[None, None]
    assert label_by_overlap(generated, truth, torch.tensor([7]), -100).tolist() == [label]
