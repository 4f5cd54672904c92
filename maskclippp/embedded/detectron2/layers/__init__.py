"""Descriptions of layers' outputs. The layers themselves come from torch."""

from detectron2.layers.shape_spec import ShapeSpec

__all__ = ["ShapeSpec"]
