"""Overlap of masks: pairwise IoU, and the labels that annotated masks give to generated ones."""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.devices import copied_to
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.upsampling import solid_parts

_EPSILON = 1e-6
_AT_A_TIME = 16


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


def label_by_overlap(
    masks: SoftMasks,
    truth: Tensor,
    classes: Tensor,
    ignore_index: int,
    min_share: float = 0.5,
) -> Tensor:
    """Label every generated mask by the annotated mask that covers the largest share of it.

    Pixels are counted in float32, also within autocast, for a few masks at a time.

    Args:
        masks: Q generated masks.
        truth: bool [n, H, W] annotated masks; generated masks are resized to their size.
        classes: int64 [n] of the annotated masks.
        ignore_index: the label of masks that no annotated mask covers enough.
        min_share: the share of a mask's area that the annotated mask must exceed.

    Returns:
        int64 [Q].
    """
    labels = torch.full((len(masks),), ignore_index, dtype=torch.int64)
    if len(masks) == 0 or len(truth) == 0:
        return labels
    size = (truth.shape[-2], truth.shape[-1])
    found = solid_parts(masks, size)
    annotated = copied_to(truth, found.binary.device).flatten(1).float().t()
    with torch.autocast(annotated.device.type, enabled=False):
        portions = torch.split(found.binary.flatten(1), _AT_A_TIME)
        inside = torch.cat([portion.float() @ annotated for portion in portions])  # [Q, n]
    share, best = (inside / found.area[:, None].clamp(min=1)).max(dim=1)
    best = torch.where(share > min_share, best, -1).cpu()
    return torch.where(best >= 0, classes[best.clamp(min=0)], labels)
