"""Overlap of binary masks."""

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-6


def mask_iou(first: Tensor, second: Tensor, scale: float = 1.0) -> Tensor:
    """Pairwise IoU, float32 [N, M], of boolean masks [N, H, W] and [M, H, W].

    With ``scale`` below 1 both sets are first shrunk by nearest-neighbor sampling. The IoU is
    intersection / (union + 1e-6), so that two empty masks have 0.
    """
    if not len(first) or not len(second):
        return torch.zeros(len(first), len(second), device=first.device)
    first_flat, second_flat = (_shrink(masks, scale).flatten(1) for masks in (first, second))
    intersection = first_flat @ second_flat.T
    areas = first_flat.sum(dim=1)[:, None] + second_flat.sum(dim=1)[None, :]
    return intersection / (areas - intersection + _EPSILON)


def _shrink(masks: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return masks.float()
    return F.interpolate(masks[None].float(), scale_factor=scale, mode="nearest")[0]
