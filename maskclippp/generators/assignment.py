"""Which annotated segment a generated mask stands for."""

import torch
from torch import Tensor

from maskclippp.soft_masks import SoftMasks


def label_by_overlap(
    masks: Tensor | SoftMasks,
    truth: Tensor,
    classes: Tensor,
    ignore_index: int,
    min_share: float = 0.5,
) -> Tensor:
    """Label every generated mask by the annotated mask that covers most of it.

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
    found = (SoftMasks.of(masks).resized(size) > 0.5).flatten(1).float()
    inside = found @ truth.to(found.device).flatten(1).float().t()  # [Q, n] pixels
    share, best = (inside / found.sum(dim=1, keepdim=True).clamp(min=1)).max(dim=1)
    chosen = classes[best.cpu()]
    return torch.where(share.cpu() > min_share, chosen, labels)
