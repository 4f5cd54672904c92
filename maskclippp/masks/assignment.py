"""Which annotated segment a generated mask stands for."""

import torch
from torch import Tensor

from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.upsampling import solid_parts

_AT_A_TIME = 16


def label_by_overlap(
    masks: Tensor | SoftMasks,
    truth: Tensor,
    classes: Tensor,
    ignore_index: int,
    min_share: float = 0.5,
) -> Tensor:
    """Label every generated mask by the annotated mask that covers most of it.

    Pixels are counted in float32, also within autocast, and for a few masks at a time.

    Args:
        masks: Q generated masks.
        truth: bool [n, H, W] annotated; generated masks are resized to them.
        classes: int64 [n] of the annotated masks.
        ignore_index: the label of masks that no annotated mask covers enough.
        min_share: least share of a mask's area inside the annotated one.

    Returns:
        int64 [Q].
    """
    labels = torch.full((len(masks),), ignore_index, dtype=torch.int64)
    if len(masks) == 0 or len(truth) == 0:
        return labels
    size = (truth.shape[-2], truth.shape[-1])
    found = solid_parts(masks, size, lambda values: values > 0.5)
    annotated = truth.to(found.binary.device).flatten(1).float().t()
    with torch.autocast(annotated.device.type, enabled=False):
        portions = found.binary.flatten(1).split(_AT_A_TIME)
        inside = torch.cat([portion.float() @ annotated for portion in portions])  # [Q, n]
    share, best = (inside / found.area[:, None].clamp(min=1)).max(dim=1)
    chosen = classes[best.cpu()]
    return torch.where(share.cpu() > min_share, chosen, labels)
