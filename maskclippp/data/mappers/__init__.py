"""Mappers: from a dataset record to what the model takes, in training and in evaluation."""

from maskclippp.data.mappers import (
    coco_instance_lsj,
    coco_panoptic_lsj,
    mask_former_instance,
    mask_former_panoptic,
    mask_former_semantic,
)
from maskclippp.data.mappers.evaluation import TestMapper
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY, build_train_mapper

__all__ = [
    "TRAIN_MAPPER_REGISTRY",
    "TestMapper",
    "build_train_mapper",
    "coco_instance_lsj",
    "coco_panoptic_lsj",
    "mask_former_instance",
    "mask_former_panoptic",
    "mask_former_semantic",
]
