"""Images of different sizes in one padded tensor."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ImageList"]


class ImageList:
    """A padded batch [B, C, H, W] that remembers the size of every image.

    Args:
        tensor: the batch.
        image_sizes: (height, width) of every image before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(
        tensors: list[Tensor], size_divisibility: int = 0, pad_value: float = 0.0
    ) -> "ImageList":
        """Pad images [C, h, w] at the right and bottom to a common, divisible size."""
        if not tensors:
            raise ValueError("an ImageList needs at least one image")
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        step = max(size_divisibility, 1)
        height, width = (-(-max(side) // step) * step for side in zip(*sizes, strict=True))
        padded = [
            functional.pad(image, (0, width - w, 0, height - h), value=pad_value)
            for image, (h, w) in zip(tensors, sizes, strict=True)
        ]
        return ImageList(torch.stack(padded), sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    def __getitem__(self, item: int) -> Tensor:
        """One image in its own size."""
        height, width = self.image_sizes[item]
        return self.tensor[item, ..., :height, :width]

    def __len__(self) -> int:
        return len(self.image_sizes)
