"""Large-scale jitter on panoptic annotation: the mapper of the COCO panoptic configs."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torchvision import tv_tensors
from torchvision.transforms import v2

from maskclippp.data.files import check_same_size, read_panoptic_ids
from maskclippp.data.mappers.color import SSDColorJitter
from maskclippp.data.mappers.common import (
    check_image_format,
    image_to_tensor,
    make_instances,
    masks_of_labels,
    read_record_image,
)
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY
from maskclippp.data.mappers.transforms import FixedSizeCrop, LargeScaleJitter, RandomFlip

_VOID = 0


class CocoPanopticLSJ:
    """Flip, jitter the scale, crop a fixed square, change colours (padding included).

    A call takes a panoptic record and returns a copy of it with ``image`` (uint8 [3, side, side]),
    ``height`` and ``width`` of the original and ``instances``: one mask per segment that is not
    crowd, in the order of the annotation, kept even when the crop left nothing of it.
    """

    @configurable
    def __init__(
        self,
        *,
        image_size: int,
        min_scale: float,
        max_scale: float,
        random_flip: str,
        image_format: str,
        color_jitter: bool,
    ) -> None:
        self.geometry = v2.Compose(
            [
                RandomFlip(random_flip),
                LargeScaleJitter(image_size, min_scale, max_scale),
                FixedSizeCrop(image_size, label_padding=_VOID),
            ]
        )
        self.jitter = SSDColorJitter() if color_jitter else None
        self.image_format = check_image_format(image_format)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "image_size": cfg.INPUT.IMAGE_SIZE,
            "min_scale": cfg.INPUT.MIN_SCALE,
            "max_scale": cfg.INPUT.MAX_SCALE,
            "random_flip": cfg.INPUT.RANDOM_FLIP,
            "image_format": cfg.INPUT.FORMAT,
            "color_jitter": cfg.INPUT.COLOR_AUG_SSD,
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        if "pan_seg_file_name" not in out or "segments_info" not in out:
            raise ValueError(
                f"INPUT.DATASET_MAPPER_NAME coco_panoptic_lsj needs panoptic annotation "
                f"(pan_seg_file_name and segments_info), which the record of {out['file_name']} "
                "lacks; choose a panoptic dataset or the mapper mask_former_semantic"
            )
        image = read_record_image(out)
        panoptic_file = out.pop("pan_seg_file_name")
        ids = torch.from_numpy(read_panoptic_ids(panoptic_file))
        check_same_size((image.height, image.width), out["file_name"], ids.shape, panoptic_file)
        image, ids = self.geometry(image, tv_tensors.Mask(ids))
        segments = [segment for segment in out["segments_info"] if not segment.get("iscrowd", 0)]
        masks = masks_of_labels(
            ids.as_subclass(torch.Tensor),
            torch.tensor([s["id"] for s in segments], dtype=ids.dtype),
        )
        classes = torch.tensor([segment["category_id"] for segment in segments], dtype=torch.int64)
        out["image"] = image_to_tensor(image, self.image_format, self.jitter)
        out["instances"] = make_instances(masks, classes, with_boxes=True)
        return out


@TRAIN_MAPPER_REGISTRY.register()
def coco_panoptic_lsj(cfg: CfgNode) -> CocoPanopticLSJ:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: coco_panoptic_lsj`` names."""
    return CocoPanopticLSJ(cfg)
