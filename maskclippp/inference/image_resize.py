"""Pillow's bilinear resizing of 8-bit images on any device, to the bit.

Images that arrive small and are resized on a GPU save the workers of a loader most of their time.
Sums of integers do not depend on their order, so that the device does not matter.
"""

from functools import lru_cache

import torch
from torch import Tensor

from maskclippp.devices import copied_to
from maskclippp.records import Record

# Pillow's fixed point: a sum of weighted bytes fits into 32 bits with two to spare.
_FRACTION_BITS = 32 - 8 - 2


def resized_on(record: Record, device: torch.device) -> Record:
    """The record with its image on ``device``, in the size ``resize_to``; as it is without one."""
    if "resize_to" not in record:
        return record
    image = resize_like_pillow(copied_to(record["image"], device), record["resize_to"])
    return {**record, "image": image}


def resize_like_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 [C, h, w] to [C, H, W], antialiased, as ``Image.resize`` does with BILINEAR."""
    height, width = image.shape[-2:]
    order = [(-1, size[1]), (-2, size[0])]  # Pillow's: in between, bytes are rounded
    if height > 100 * width and size[0] < height:
        order.reverse()
    for axis, target in order:
        if image.shape[axis] != target:
            image = _resize_axis(image, axis, target)
    return image


def _resize_axis(image: Tensor, axis: int, target: int) -> Tensor:
    positions, weights = _taps(image.shape[axis], target, image.device)
    shape = (-1, 1) if axis == -2 else (-1,)
    # Half of a unit is added before the fraction is cut off.
    total: Tensor | int = 2 ** (_FRACTION_BITS - 1)
    for position, weight in zip(positions, weights, strict=True):
        total = total + image.index_select(axis, position).int() * weight.view(shape)
    assert isinstance(total, Tensor)
    return (total >> _FRACTION_BITS).clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=512)  # images have few sizes
@torch.inference_mode(mode=False)
def _taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions int64 [T, target] and weights int32 [T, target] of the sources of every output.

    The weights are those of a triangle as wide as two sources, or as two outputs if these are
    farther apart.
    """
    scale = source / target
    reach = max(scale, 1.0)
    center = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    first = (center - reach + 0.5).long().clamp(min=0)
    last = (center + reach + 0.5).long().clamp(max=source)  # exclusive
    offsets = torch.arange(int((last - first).max()))
    positions = first[:, None] + offsets
    distance = (positions - center[:, None] + 0.5).abs() / reach
    weights = (1 - distance).clamp(min=0) * (positions < last[:, None])
    weights /= weights.sum(dim=1, keepdim=True)
    fixed = (weights * 2**_FRACTION_BITS + 0.5).int()
    positions = positions.clamp(max=source - 1)
    return (
        copied_to(positions.T.contiguous(), device),
        copied_to(fixed.T.contiguous(), device),
    )
