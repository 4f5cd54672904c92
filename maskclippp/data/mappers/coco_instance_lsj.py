"""Large-scale jitter on instance annotation."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torchvision import tv_tensors

from maskclippp.data.mappers.annotations import InstanceAnnotations
from maskclippp.data.mappers.augmentation import LargeScaleJitterAugmentation
from maskclippp.data.mappers.common import make_instances, read_record_image
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY


class CocoInstanceLSJ:
    """Takes a record with instance annotation and returns a copy with image and objects augmented.

    Added are ``image`` (uint8 [3, side, side]), ``height`` and ``width`` of the original,
    ``padding_mask`` (bool [side, side], true where the image was padded) and ``instances``: masks
    and boxes of the objects of which the crop left something.

    Other than the published mapper it also takes run-length codes, changes colors when asked to,
    and its padding mask marks the padding (the published one is false everywhere).
    """

    def __init__(self, augmentation: LargeScaleJitterAugmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        image = read_record_image(out)
        annotations = InstanceAnnotations.of_record(out, image.height, image.width)
        out.pop("annotations")
        everywhere = tv_tensors.Mask(torch.ones(image.height, image.width, dtype=torch.uint8))
        out["image"], vertices, masks, canvas = self.augmentation(
            image, annotations.vertices, annotations.masks, everywhere
        )
        inside = canvas.as_subclass(Tensor) != 0
        # An outline may leave the image a little; the padding must stay free of it.
        drawn = annotations.draw(vertices, masks, inside.shape) & inside
        left = drawn.flatten(1).any(dim=1)
        out["padding_mask"] = ~inside
        out["instances"] = make_instances(drawn[left], annotations.classes[left], with_boxes=True)
        return out


@TRAIN_MAPPER_REGISTRY.register()
def coco_instance_lsj(cfg: CfgNode) -> CocoInstanceLSJ:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: coco_instance_lsj`` names."""
    return CocoInstanceLSJ(LargeScaleJitterAugmentation.from_config(cfg))
