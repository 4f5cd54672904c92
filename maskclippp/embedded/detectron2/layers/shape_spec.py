"""The shape of a feature map, as far as known when a model is built."""

from dataclasses import dataclass

__all__ = ["ShapeSpec"]


@dataclass
class ShapeSpec:
    """Channels, size and stride (in input pixels) of a feature map; None if unknown."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
