"""Resize, crop, flip on semantic annotation: the mapper of the COCO-Stuff configs."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from torchvision import tv_tensors
from torchvision.transforms import v2

from maskclippp.data.files import check_same_size
from maskclippp.data.mappers.color import SSDColorJitter
from maskclippp.data.mappers.common import (
    check_image_format,
    image_to_tensor,
    make_instances,
    masks_of_labels,
    read_record_image,
)
from maskclippp.data.mappers.registry import TRAIN_MAPPER_REGISTRY
from maskclippp.data.mappers.transforms import (
    RandomCrop,
    RandomFlip,
    ResizeShortestEdge,
    pad_to,
)
from maskclippp.data.semantic_maps import check_label_range, read_semantic_labels
from maskclippp.vocabulary import class_names_of


class MaskFormerSemantic:
    """Resize the shorter side, crop, change colours, flip, pad.

    A call takes a record with semantic labels (or panoptic annotation, from which they follow) and
    returns a copy of it with ``image`` (uint8 [3, h, w]), ``sem_seg`` (int64 [h, w]), ``height``
    and ``width`` of the original and ``instances``: a mask per class present, classes ascending.

    Args:
        crop: None, or the crop to apply.
        num_classes: of ``dataset_name``; a label that is neither below it nor ``ignore_label`` is a
            ValueError that names the file.
        pad_size: pad image (128) and labels (``ignore_label``) to exactly this height and width,
            cutting what exceeds it; None: no padding.
    """

    @configurable
    def __init__(
        self,
        *,
        min_sizes: Sequence[int],
        max_size: int,
        min_size_sampling: str,
        crop: RandomCrop | None,
        image_format: str,
        color_jitter: bool,
        ignore_label: int,
        num_classes: int,
        dataset_name: str,
        pad_size: int | None,
    ) -> None:
        # The published training samples labels at pixel corners; so do we, to fit its numbers.
        resize = ResizeShortestEdge(min_sizes, max_size, min_size_sampling, label_sampling="corner")
        self.resize_and_crop = v2.Compose([resize] if crop is None else [resize, crop])
        self.flip = RandomFlip("horizontal")
        self.jitter = SSDColorJitter() if color_jitter else None
        self.image_format = check_image_format(image_format)
        self.ignore_label = ignore_label
        self.num_classes = num_classes
        self.dataset_name = dataset_name
        self.pad_size = pad_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        crop = cfg.INPUT.CROP
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN is empty: mask_former_semantic needs its ignore_label")
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        if metadata.get("ignore_label", None) is None:
            raise ValueError(
                f"dataset {metadata.name} has no ignore_label in its metadata, which "
                "INPUT.DATASET_MAPPER_NAME mask_former_semantic needs"
            )
        return {
            "min_sizes": cfg.INPUT.MIN_SIZE_TRAIN,
            "max_size": cfg.INPUT.MAX_SIZE_TRAIN,
            "min_size_sampling": cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            "crop": RandomCrop(
                crop.TYPE,
                crop.SIZE,
                crop.SINGLE_CATEGORY_MAX_AREA,
                cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            )
            if crop.ENABLED
            else None,
            "image_format": cfg.INPUT.FORMAT,
            "color_jitter": cfg.INPUT.COLOR_AUG_SSD,
            "ignore_label": metadata.ignore_label,
            "num_classes": len(class_names_of(metadata)),
            "dataset_name": metadata.name,
            "pad_size": cfg.INPUT.SIZE_DIVISIBILITY if cfg.INPUT.SIZE_DIVISIBILITY > 0 else None,
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        out = copy.deepcopy(dict(record))
        if "annotations" in out:
            raise ValueError(
                f"INPUT.DATASET_MAPPER_NAME mask_former_semantic reads semantic labels, but the "
                f"record of {out['file_name']} holds instance annotations"
            )
        image = read_record_image(out)
        semantic = read_semantic_labels(out, self.ignore_label)
        out.pop("sem_seg_file_name", None)
        check_same_size(
            (image.height, image.width), out["file_name"], semantic.labels.shape, semantic.source
        )
        check_label_range(
            semantic,
            num_classes=self.num_classes,
            ignore_label=self.ignore_label,
            dataset_name=self.dataset_name,
        )
        labels = torch.from_numpy(semantic.labels).long()
        image, mask = self.resize_and_crop(image, tv_tensors.Mask(labels))
        tensor = image_to_tensor(image, self.image_format, self.jitter)
        tensor, mask = self.flip(tv_tensors.Image(tensor), mask)
        if self.pad_size is not None:
            tensor, mask = (
                pad_to(item, self.pad_size, self.pad_size, self.ignore_label)
                for item in (tensor, mask)
            )
        labels = mask.as_subclass(torch.Tensor)
        classes = torch.unique(labels)
        classes = classes[classes != self.ignore_label]
        out["image"] = tensor.as_subclass(torch.Tensor).contiguous()
        out["sem_seg"] = labels.contiguous()
        out["instances"] = make_instances(
            masks_of_labels(labels, classes), classes, with_boxes=False
        )
        return out


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_semantic(cfg: CfgNode) -> MaskFormerSemantic:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME: mask_former_semantic`` names."""
    return MaskFormerSemantic(cfg)
