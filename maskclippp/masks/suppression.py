"""Non-maximum suppression of masks."""

import torch
from torch import Tensor

_CHUNK = 256


def suppress(masks: Tensor, scores: Tensor, max_iou: float) -> Tensor:
    """Masks of which no two overlap by more than ``max_iou``, the best scores first.

    Greedy: a mask is dropped if its intersection over union with a better one that was kept is
    larger.

    Args:
        masks: bool [n, h, w].
        scores: [n].
        max_iou: from 0 to 1.

    Returns:
        int64 indices of the masks that are kept, by descending score.
    """
    order = scores.argsort(descending=True, stable=True)
    overlaps = (_iou(masks[order].flatten(1)) > max_iou).cpu()
    dropped = torch.zeros(len(order), dtype=torch.bool)
    for index, row in enumerate(overlaps):
        if not dropped[index]:
            dropped[index + 1 :] |= row[index + 1 :]
    return order[~dropped.to(order.device)]


def _iou(masks: Tensor) -> Tensor:
    """float32 [n, n] of bool masks [n, pixels]; 0 for two empty masks."""
    pixels = masks.float()
    area = pixels.sum(dim=1)
    intersection = torch.cat(
        [part @ pixels.T for part in pixels.split(_CHUNK)] or [pixels.new_zeros(0, 0)]
    )
    union = area[:, None] + area[None] - intersection
    return intersection / union.clamp(min=1)
