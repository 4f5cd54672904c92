"""Average of a feature map inside each mask."""

import torch
from torch.testing import assert_close

from maskclippp.clip.mask_pooling import pool_masks


def test_equals_a_loop_over_masks() -> None:
    features, masks, counts = torch.randn(3, 5, 4, 6), torch.rand(6, 4, 6), [2, 0, 4]
    images = [0, 0, 2, 2, 2, 2]
    expected = [
        (features[image] * mask / (mask.sum() + 1e-6)).sum(dim=(1, 2))
        for image, mask in zip(images, masks, strict=True)
    ]
    assert_close(pool_masks(features, masks, counts), torch.stack(expected))


def test_an_empty_mask_gives_zeros() -> None:
    pooled = pool_masks(torch.randn(1, 5, 4, 6), torch.zeros(1, 4, 6), [1])
    assert torch.equal(pooled, torch.zeros(1, 5))


def test_no_masks_keep_the_graph() -> None:
    features = torch.randn(2, 5, 4, 6, requires_grad=True)
    pooled = pool_masks(features, torch.zeros(0, 4, 6), [0, 0])
    assert pooled.shape == (0, 5)
    pooled.sum().backward()
    assert features.grad is not None
