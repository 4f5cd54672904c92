"""Average of a feature map inside each mask."""

from collections.abc import Sequence

from torch import Tensor

from maskclippp.masks.batching import pad_ragged, unpad_ragged


def pool_masks(features: Tensor, masks: Tensor, masks_per_image: Sequence[int]) -> Tensor:
    """Average ``features`` [B, C, h, w] inside soft masks [N, h, w] of B images -> [N, C].

    Weights are mask / (mask sum + 1e-6), so a mask that is empty on the grid gives zeros.
    """
    weights = masks / (masks.sum(dim=(1, 2), keepdim=True) + 1e-6)
    if masks.shape[0] == 0:
        return features.new_zeros(0, features.shape[1]) + features.sum() * 0
    padded = pad_ragged(weights.flatten(1).to(features.dtype), masks_per_image)  # [B, Q, hw]
    pooled = padded @ features.flatten(2).transpose(1, 2)  # [B, Q, C]
    return unpad_ragged(pooled, masks_per_image)
