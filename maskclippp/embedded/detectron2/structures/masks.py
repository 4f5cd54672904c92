"""Bitmap masks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from detectron2.structures.boxes import Boxes

__all__ = ["BitMasks", "polygons_to_bitmask"]


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of polygons, bool [height, width]; a polygon is a flat array x0, y0, x1, y1, ..."""
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    encoded = coco_mask.frPyObjects([np.asarray(p).tolist() for p in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(encoded)).astype(bool)


class BitMasks:
    """N masks as a bool tensor [N, H, W]."""

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.ndim != 3:
            raise ValueError(f"BitMasks need a tensor [N, H, W], got {tuple(tensor.shape)}")
        self.tensor = tensor
        self.image_size = tensor.shape[1:]

    @staticmethod
    def cat(bitmasks_list: list["BitMasks"]) -> "BitMasks":
        """Concatenate masks of one image size."""
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        return BitMasks(self.tensor.to(*args, **kwargs))

    def nonempty(self) -> Tensor:
        """Bool [N]: whether a mask has any pixel."""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the masks, right and bottom exclusive; zeros for empty masks."""
        columns, rows = self.tensor.any(dim=1), self.tensor.any(dim=2)
        left, right = _first_and_last(columns)
        top, bottom = _first_and_last(rows)
        return Boxes(torch.stack([left, top, right, bottom], dim=1).float())

    def __getitem__(self, item: int | slice | Tensor) -> "BitMasks":
        """A selection, as :class:`BitMasks` even for a single mask."""
        selected = self.tensor[item]
        return BitMasks(selected[None] if isinstance(item, int) else selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"


def _first_and_last(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the first and one past the last True per row of [N, L]; 0 and 0 if none."""
    if occupied.shape[1] == 0:
        zeros = torch.zeros(occupied.shape[0], dtype=torch.long, device=occupied.device)
        return zeros, zeros
    flags = occupied.to(torch.uint8)
    first = flags.argmax(dim=1)
    end = occupied.shape[1] - flags.flip(1).argmax(dim=1)
    return first, torch.where(occupied.any(dim=1), end, torch.zeros_like(end))
