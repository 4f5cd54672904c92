"""Resize, crop, flip on instance annotation."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from torchvision import tv_tensors

from maskclippp.data.mappers.annotations import InstanceAnnotations
from maskclippp.data.mappers.augmentation import ShortestEdgeAugmentation
from maskclippp.data.mappers.common import make_instances, read_record_image
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY


class MaskFormerInstance:
    """Takes a record with instance annotation and returns a copy with image and objects augmented.

    Added are ``image`` (uint8 [3, h, w]), ``height`` and ``width`` of the original and
    ``instances``: a mask per object that is not crowd, kept even when the crop left nothing of it.
    """

    def __init__(self, augmentation: ShortestEdgeAugmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        image = read_record_image(out)
        annotations = InstanceAnnotations.of_record(out, image.height, image.width)
        out.pop("annotations")
        tensor, vertices, masks = self.augmentation(image, annotations.vertices, annotations.masks)
        drawn = annotations.draw(vertices, masks, tensor.shape[1:])
        out["image"] = self.augmentation.pad(tensor)
        padded = self.augmentation.pad(tv_tensors.Mask(drawn.to(torch.uint8))).bool()
        out["instances"] = make_instances(padded, annotations.classes, with_boxes=False)
        return out


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_instance(cfg: CfgNode) -> MaskFormerInstance:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: mask_former_instance`` names."""
    augmentation = ShortestEdgeAugmentation.from_config(
        cfg, label_sampling="center", limit_categories=False
    )
    return MaskFormerInstance(augmentation)
