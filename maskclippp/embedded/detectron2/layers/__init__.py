"""Shapes of feature maps; the layers themselves are those of torch."""

from detectron2.layers.shape_spec import ShapeSpec

__all__ = ["ShapeSpec"]
