"""Axis-aligned boxes."""

from collections.abc import Iterator, Sequence
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["BoxMode", "Boxes", "pairwise_iou"]


@unique
class BoxMode(IntEnum):
    """How four numbers describe a box; the values appear in dataset records."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: Any, from_mode: "BoxMode", to_mode: "BoxMode") -> Any:
        """Convert one box (list or tuple) or several (array or tensor [N, 4]), keeping the type.

        Raises:
            AssertionError: modes other than XYXY_ABS and XYWH_ABS.
            ValueError: not 4 numbers per box.
        """
        if from_mode == to_mode:
            return box
        assert {from_mode, to_mode} == {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}, (
            f"no conversion from {from_mode!r} to {to_mode!r}"
        )
        is_sequence = isinstance(box, (list, tuple))
        array = np.asarray([box]) if is_sequence else box
        if array.shape[-1] != 4:
            raise ValueError(f"a box has 4 numbers, got shape {tuple(array.shape)}")
        result: Any = array.clone() if isinstance(array, Tensor) else array.copy()
        if from_mode == BoxMode.XYWH_ABS:
            result[..., 2:] += result[..., :2]
        else:
            result[..., 2:] -= result[..., :2]
        return type(box)(result[0].tolist()) if is_sequence else result


class Boxes:
    """N boxes as a float32 tensor [N, 4] of (x1, y1, x2, y2), in pixels."""

    def __init__(self, tensor: Tensor | Sequence[Sequence[float]]) -> None:
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor(tensor, dtype=torch.float32)
        tensor = tensor.to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.ndim != 2 or tensor.shape[1] != 4:
            raise ValueError(f"Boxes need a tensor [N, 4], got {tuple(tensor.shape)}")
        self.tensor = tensor

    @classmethod
    def cat(cls, boxes_list: list["Boxes"]) -> "Boxes":
        """Concatenate boxes."""
        if not boxes_list:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def clone(self) -> "Boxes":
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> "Boxes":
        return Boxes(self.tensor.to(device=device))

    def area(self) -> Tensor:
        """Areas [N]."""
        width_height = self.tensor[:, 2:] - self.tensor[:, :2]
        return width_height[:, 0] * width_height[:, 1]

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Bool [N]: whether both sides are longer than ``threshold``."""
        return (self.tensor[:, 2:] - self.tensor[:, :2] > threshold).all(dim=1)

    def __getitem__(self, item: int | slice | Tensor) -> "Boxes":
        """A selection, as :class:`Boxes` even for a single box."""
        selected = self.tensor[item]
        return Boxes(selected[None] if isinstance(item, int) else selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of all pairs, [N, M]; 0 for disjoint boxes."""
    first, second = boxes1.tensor[:, None], boxes2.tensor[None]
    top_left = torch.maximum(first[..., :2], second[..., :2])
    bottom_right = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    union = boxes1.area()[:, None] + boxes2.area()[None] - intersection
    return torch.where(intersection > 0, intersection / union, torch.zeros_like(intersection))
