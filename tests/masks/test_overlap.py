"""Pairwise overlap of masks."""

import pytest
import torch

from maskclippp.masks.overlap import mask_iou
from tests.golden_cases import GoldenCase, cases


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
