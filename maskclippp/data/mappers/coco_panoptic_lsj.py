"""Large-scale jitter on panoptic annotation: the mapper of the COCO panoptic configs."""

import copy
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from maskclippp.data.mappers.augmentation import LargeScaleJitterAugmentation
from maskclippp.data.mappers.common import make_instances, read_record_image
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY
from maskclippp.data.mappers.segments import PanopticSegments


class CocoPanopticLSJ:
    """Takes a panoptic record and returns a copy of it with the augmented image and its segments.

    Added are ``image`` (uint8 [3, side, side]), ``height`` and ``width`` of the original and
    ``instances``: one mask per segment that is not crowd, in the order of the annotation, kept even
    when the crop left nothing of it.
    """

    def __init__(self, augmentation: LargeScaleJitterAugmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        image = read_record_image(out)
        segments = PanopticSegments.of_record(out, image.height, image.width)
        out.pop("pan_seg_file_name")
        out["image"], ids = self.augmentation(image, segments.ids)
        out["instances"] = make_instances(segments.masks(ids), segments.classes, with_boxes=True)
        return out


@TRAIN_MAPPER_REGISTRY.register()
def coco_panoptic_lsj(cfg: CfgNode) -> CocoPanopticLSJ:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: coco_panoptic_lsj`` names."""
    return CocoPanopticLSJ(LargeScaleJitterAugmentation.from_config(cfg))
