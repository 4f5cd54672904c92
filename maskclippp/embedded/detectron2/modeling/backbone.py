"""Backbones, which map images to named feature maps."""

from abc import ABCMeta, abstractmethod
from typing import Any

from torch import Tensor, nn

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

__all__ = ["BACKBONE_REGISTRY", "Backbone", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module, metaclass=ABCMeta):
    """Base class of networks that map a batch of images to named feature maps."""

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """From images [B, 3, H, W] to feature maps [B, C, h, w] by name."""

    @property
    def size_divisibility(self) -> int:
        """The height and width of the input must be multiples of this; 0: no constraint."""
        return 0

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Any:
    """The backbone that MODEL.BACKBONE.NAME names."""
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, input_shape)
