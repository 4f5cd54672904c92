"""Resize, crop, flip on semantic annotation: the mapper of the COCO-Stuff configs."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode

from maskclippp.data.mappers.augmentation import ShortestEdgeAugmentation
from maskclippp.data.mappers.common import make_instances, masks_of_labels, read_record_image
from maskclippp.data.mappers.label_rules import LabelRules
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY
from maskclippp.errors import InputError


class MaskFormerSemantic:
    """Takes a record with semantic labels and returns a copy with image and labels augmented.

    Panoptic annotation will do, as labels follow from it. Added are ``image`` (uint8 [3, h, w]),
    ``sem_seg`` (int64 [h, w]), ``height`` and ``width`` of the original and ``instances``: a mask
    per class present, classes ascending.
    """

    def __init__(self, augmentation: ShortestEdgeAugmentation, rules: LabelRules) -> None:
        self.augmentation = augmentation
        self.rules = rules

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        if "annotations" in out:
            raise InputError(
                f"INPUT.DATASET_MAPPER_NAME mask_former_semantic reads semantic labels, but the "
                f"record of {out['file_name']} holds instance annotations"
            )
        image = read_record_image(out)
        ignore_label = self.rules.ignore_label
        tensor, mask = self.augmentation(image, self.rules.read(out, image.height, image.width))
        out.pop("sem_seg_file_name", None)
        labels = self.augmentation.pad(mask, ignore_label)
        classes = torch.unique(labels)
        classes = classes[classes != ignore_label]
        out["image"] = self.augmentation.pad(tensor)
        out["sem_seg"] = labels
        masks = masks_of_labels(labels, classes)
        out["instances"] = make_instances(masks, classes, with_boxes=False)
        return out


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_semantic(cfg: CfgNode) -> MaskFormerSemantic:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: mask_former_semantic`` names."""
    # The published training samples labels at pixel corners; so do we, to fit its numbers.
    augmentation = ShortestEdgeAugmentation.from_config(
        cfg, label_sampling="corner", limit_categories=True
    )
    return MaskFormerSemantic(augmentation, LabelRules.from_config(cfg))
