"""Resize, crop, flip on panoptic annotation."""

import copy
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from maskclippp.data.mappers.augmentation import ShortestEdgeAugmentation
from maskclippp.data.mappers.common import make_instances, read_record_image
from maskclippp.data.mappers.label_rules import LabelRules
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY
from maskclippp.data.mappers.segments import PanopticSegments


class MaskFormerPanoptic:
    """Takes a panoptic record and returns a copy of it with the augmented image and its segments.

    Added are ``image`` (uint8 [3, h, w]), ``sem_seg`` (int64 [h, w], class ids), ``height`` and
    ``width`` of the original and ``instances``: one mask per segment that is not crowd, in the
    order of the annotation, kept even when the crop left nothing of it.

    As published, class ids are resized at pixel corners and segments at pixel centers: they may
    disagree by a pixel at the borders.
    """

    def __init__(self, augmentation: ShortestEdgeAugmentation, rules: LabelRules) -> None:
        self.augmentation = augmentation
        self.rules = rules

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        image = read_record_image(out)
        segments = PanopticSegments.of_record(out, image.height, image.width)
        labels = self.rules.read(out, image.height, image.width)
        for key in ("pan_seg_file_name", "sem_seg_file_name"):
            out.pop(key, None)
        tensor, labels, ids = self.augmentation(image, labels, segments.ids)
        out["image"] = self.augmentation.pad(tensor)
        out["sem_seg"] = self.augmentation.pad(labels, self.rules.ignore_label)
        masks = segments.masks(self.augmentation.pad(ids))
        out["instances"] = make_instances(masks, segments.classes, with_boxes=False)
        return out


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_panoptic(cfg: CfgNode) -> MaskFormerPanoptic:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: mask_former_panoptic`` names."""
    augmentation = ShortestEdgeAugmentation.from_config(
        cfg, label_sampling="corner", limit_categories=True
    )
    return MaskFormerPanoptic(augmentation, LabelRules.from_config(cfg))
