"""The loss of mask generators: what it demands."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from shapes.mask_losses import LossWeights, Segments, dice_loss, matching_costs, set_loss

VOID = 3
WEIGHTS = LossWeights()
SURE = 20.0  # a logit


def stripes() -> Segments:
    """A 4 x 6 grid: two columns of class 2, four of class 0."""
    masks = torch.zeros(2, 4, 6)
    masks[0, :, :2] = masks[1, :, 2:] = 1
    return Segments(masks, torch.tensor([2, 0]))


def predictions(labels: list[int], masks: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [1, Q, K + 1] and [1, Q, h, w] of queries that are sure of this."""
    classes = F.one_hot(torch.tensor(labels), VOID + 1).float()
    return SURE * classes[None], SURE * (2 * masks[None] - 1)


def loss(labels: list[int], masks: Tensor, target: Segments) -> float:
    return set_loss(*predictions(labels, masks), [target], WEIGHTS).item()


def test_the_truth_in_any_order_costs_nothing() -> None:
    target = stripes()
    nothing = torch.zeros(1, 4, 6)
    ordered = torch.cat([target.masks, nothing])
    assert loss([2, 0, VOID], ordered, target) == pytest.approx(0, abs=1e-4)
    assert loss([VOID, 0, 2], ordered.flip(0), target) == pytest.approx(0, abs=1e-4)


def test_a_second_query_for_the_same_segment_is_told_to_say_void() -> None:
    target = stripes()
    masks = torch.cat([target.masks, target.masks[:1]])
    assert loss([2, 0, 2], masks, target) > loss([2, 0, VOID], masks, target) + 1


def test_images_without_any_label_have_a_finite_loss_with_gradients() -> None:
    empty = Segments(torch.zeros(0, 4, 6), torch.zeros(0, dtype=torch.int64))
    classes = torch.randn(2, 5, VOID + 1, requires_grad=True)
    masks = torch.randn(2, 5, 4, 6, requires_grad=True)
    value = set_loss(classes, masks, [empty, empty], WEIGHTS)
    value.backward()
    assert value.isfinite()
    assert classes.grad is not None
    assert masks.grad is not None


def test_void_weighs_a_tenth_of_a_class() -> None:
    target = stripes()
    masks = torch.cat([target.masks, torch.zeros(1, 4, 6)])
    undecided = torch.zeros(1, 3, VOID + 1)
    # Sure of both segments, undecided whether the third query means anything.
    classes, logits = predictions([2, 0, VOID], masks)
    classes[:, 2] = undecided[:, 2]
    expected = WEIGHTS.classification * 0.1 * math.log(VOID + 1) / 2.1
    assert set_loss(classes, logits, [target], WEIGHTS).item() == pytest.approx(expected, rel=1e-3)


def test_costs_of_pairs_are_the_losses_of_pairs() -> None:
    masks, true, classes = torch.randn(5, 24), torch.rand(3, 24), torch.randn(5, VOID + 1)
    labels = torch.tensor([0, 2, 2])
    costs = matching_costs(classes, masks, true, labels, WEIGHTS)
    for query, segment in torch.cartesian_prod(torch.arange(5), torch.arange(3)).tolist():
        expected = (
            WEIGHTS.cross_entropy * F.binary_cross_entropy_with_logits(masks[query], true[segment])
            + WEIGHTS.dice * dice_loss(masks[query][None], true[segment][None])[0]
            - WEIGHTS.classification * classes[query].softmax(0)[labels[segment]]
        )
        assert_close(costs[query, segment], expected)


def test_dice_counts_small_and_large_segments_alike() -> None:
    small, large = torch.zeros(1, 10_000), torch.ones(1, 10_000)
    small[:, :1000] = 1
    missed = torch.full((1, 10_000), -SURE)
    assert_close(dice_loss(missed, small), dice_loss(missed, large), rtol=0, atol=2e-3)
