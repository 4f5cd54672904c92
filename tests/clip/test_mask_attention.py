"""Mask tokens see the cells of their mask and nothing else; images of a batch do not mix."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip.mask_attention import OUTSIDE, attend_to_masks, mask_attention_bias

HEADS, WIDTH, GRID = 2, 8, (3, 4)
CELLS = GRID[0] * GRID[1]


def random_inputs(*masks_per_image: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values of a batch and its masks."""
    images = len(masks_per_image)
    query = torch.randn(images, HEADS, max(masks_per_image), WIDTH)
    key, value = torch.randn(2, images, HEADS, CELLS, WIDTH)
    return query, key, value, torch.rand(sum(masks_per_image), *GRID)


def test_a_cell_inside_gets_its_value_times_the_scale_of_the_head() -> None:
    mask = torch.tensor([[[0.0, 0.2], [0.6, 1.0]]])
    bias = mask_attention_bias(mask, torch.tensor([0.0, math.log(3)]), threshold=None)
    expected = [[OUTSIDE, OUTSIDE, 0.6, 1.0], [OUTSIDE, OUTSIDE, 1.8, 3.0]]
    assert_close(bias, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("threshold", "inside"),
    [
        (None, [False, False, True, True]),  # more than half of the maximum of 0.5
        (0.0, [False, True, True, True]),
        (0.3, [False, False, False, True]),
    ],
)
def test_a_value_at_the_threshold_is_outside(threshold: float | None, inside: list[bool]) -> None:
    mask = torch.tensor([[[0.0, 0.25], [0.3, 0.5]]])
    bias = mask_attention_bias(mask, torch.zeros(1), threshold)
    assert (bias[0, 0] > OUTSIDE).tolist() == inside


def test_half_of_the_maximum_is_taken_for_every_mask_alone() -> None:
    masks = torch.tensor([[[0.1, 0.4]], [[0.4, 1.0]]])
    bias = mask_attention_bias(masks, torch.zeros(1), threshold=None)
    assert (bias[:, 0] > OUTSIDE).tolist() == [[False, True], [False, True]]


def test_an_empty_mask_is_outside_everywhere_and_attends_to_all_cells() -> None:
    query, key, value, _ = random_inputs(1)
    bias = mask_attention_bias(torch.zeros(1, *GRID), torch.zeros(HEADS), threshold=None)
    assert (bias == OUTSIDE).all()
    no_bias = torch.zeros(1, HEADS, CELLS)
    assert_close(
        attend_to_masks(query, key, value, bias, [1]),
        attend_to_masks(query, key, value, no_bias, [1]),
    )


def test_the_scale_of_every_head_is_learned_from_its_own_bias() -> None:
    masks = torch.rand(2, *GRID) + 0.5
    log_scale = torch.zeros(HEADS, requires_grad=True)
    bias = mask_attention_bias(masks, log_scale, threshold=0.0)
    bias[:, 1].sum().backward()
    assert_close(log_scale.grad, torch.stack([torch.tensor(0.0), masks.sum()]))


def test_attention_is_the_softmax_over_the_cells_of_the_masks_image() -> None:
    counts = [2, 0, 3]
    query, key, value, masks = random_inputs(*counts)
    bias = mask_attention_bias(masks, torch.ones(HEADS), threshold=None)
    attended = attend_to_masks(query, key, value, bias, counts)
    mask = 0
    for image, count in enumerate(counts):
        for row in range(count):
            for head in range(HEADS):
                logits = key[image, head] @ query[image, head, row] / math.sqrt(WIDTH)
                weights = (logits + bias[mask, head]).softmax(dim=0)
                assert_close(attended[image, head, row], weights @ value[image, head])
            mask += 1


def test_cells_outside_a_mask_do_not_matter() -> None:
    query, key, value, _ = random_inputs(1)
    mask = torch.zeros(1, *GRID)
    mask[:, 0] = 1
    bias = mask_attention_bias(mask, torch.zeros(HEADS), threshold=None)
    attended = attend_to_masks(query, key, value, bias, [1])
    value[:, :, GRID[1] :] = torch.randn(HEADS, CELLS - GRID[1], WIDTH)
    assert_close(attend_to_masks(query, key, value, bias, [1]), attended)


def test_rows_beyond_the_masks_of_an_image_are_finite() -> None:
    query, key, value, masks = random_inputs(0, 2)
    bias = mask_attention_bias(masks, torch.zeros(HEADS), threshold=None)
    assert attend_to_masks(query, key, value, bias, [0, 2]).isfinite().all()


def test_a_batch_without_masks_attends_to_nothing() -> None:
    query, key, value, masks = random_inputs(0, 0)
    bias = mask_attention_bias(masks, torch.zeros(HEADS), threshold=None)
    assert attend_to_masks(query, key, value, bias, [0, 0]).shape == (2, HEADS, 0, WIDTH)


def test_bfloat16_queries_meet_a_float32_bias() -> None:
    query, key, value, masks = random_inputs(2)
    bias = mask_attention_bias(masks, torch.zeros(HEADS), threshold=None)
    exact = attend_to_masks(query, key, value, bias, [2])
    rough = attend_to_masks(query.bfloat16(), key.bfloat16(), value.bfloat16(), bias, [2])
    assert rough.dtype == torch.bfloat16
    assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
