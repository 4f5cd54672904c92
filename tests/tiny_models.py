"""Complete models of a few hundred thousand random parameters, and inputs for them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from torch import Tensor

from maskclippp.clip import CLIPTextEncoder, VisualEncoder, build_text_tower, build_visual_encoder
from maskclippp.config.keys import get_cfg
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.meta_arch import MaskCLIPpp

MODEL_NAME = "shapes_convnext"
TRAIN_SET, TEST_SET = "tiny_train", "tiny_test"
TRAIN_CLASSES = ["cat, kitten", "dog", "grass, lawn, meadow"]
TEST_CLASSES = ["tree", "dog, puppy", "lawn", "sky"]
TEST_THINGS = frozenset({1})

# Config keys for panoptic and instance results beside semantic ones.
ALL_TASKS = (
    *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
    *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
)

MetadataCatalog.get(TRAIN_SET).set(stuff_classes=TRAIN_CLASSES, ignore_label=255)
MetadataCatalog.get(TEST_SET).set(
    stuff_classes=TEST_CLASSES,
    thing_dataset_id_to_contiguous_id={7: 1},
    ignore_label=255,
)


def tiny_config(*options: Any) -> CfgNode:
    """Fine-tuning of a random tiny ConvNeXt.

    Options: key, value, key, value, ...; a key that starts with a dot is in MODEL.MASKCLIPPP.
    """
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "MaskCLIPpp"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (TRAIN_SET,), (TEST_SET,)
    node = cfg.MODEL.MASKCLIPPP
    node.TEMPLATES = "t14"
    node.VISUAL_ENCODER.NAME, node.TEXT_ENCODER.NAME = "CLIPConvNeXt", "CLIPTextEncoder"
    for tower in (node.VISUAL_ENCODER, node.TEXT_ENCODER):
        tower.MODEL_NAME, tower.PRETRAINED = MODEL_NAME, "random"
    node.VISUAL_ENCODER.OUT_FEATURES = ["m_embs", "p_embs"]
    node.VISUAL_ENCODER.FINETUNE_TYPE = "all"
    node.VISUAL_ENCODER.MASK_PRIOR_BEG = 5
    node.PSM.NAME = "LinearPSM"
    node.SEGMENTOR.NAME = "GTSegmentor"
    keys = [f"MODEL.MASKCLIPPP{key}" if key[0] == "." else key for key in options[::2]]
    for key, value in zip(keys, options[1::2], strict=True):
        cfg.merge_from_list([key, value])
    return cfg


def tiny_model(*options: Any) -> MaskCLIPpp:
    return MaskCLIPpp(tiny_config(*options))


def tiny_text_tower(*options: Any) -> CLIPTextEncoder:
    tower = build_text_tower(tiny_config(*options).MODEL.MASKCLIPPP.TEXT_ENCODER)
    assert isinstance(tower, CLIPTextEncoder)
    return tower.eval()


def tiny_visual_encoder(*options: Any) -> VisualEncoder:
    return build_visual_encoder(tiny_config(*options).MODEL.MASKCLIPPP.VISUAL_ENCODER)


def random_image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def train_record(size: tuple[int, int], classes: Sequence[int], masks: Tensor) -> dict[str, Any]:
    """A training record with the given masks, bool [n, h, w]."""
    instances = Instances(size)
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = masks
    return {"image": random_image(*size), "instances": instances, "file_name": "some/image.jpg"}


def striped_record(size: tuple[int, int], classes: Sequence[int]) -> dict[str, Any]:
    """A training record whose masks are vertical stripes, one per class."""
    column = torch.arange(size[1]) * max(len(classes), 1) // size[1]
    masks = (column == torch.arange(len(classes))[:, None, None]).expand(-1, *size)
    return train_record(size, classes, masks)


def labeled_record(size: tuple[int, int], *labels: int) -> dict[str, Any]:
    """A test record whose label map consists of vertical stripes of the labels."""
    column = torch.arange(size[1]) * len(labels) // size[1]
    return {
        "image": random_image(*size),
        "sem_seg": torch.tensor(labels)[column].expand(size).clone(),
        "height": size[0],
        "width": size[1],
        "file_name": "some/image.jpg",
    }


def soft(masks: Iterable[Tensor]) -> list[SoftMasks]:
    """Masks that span their images, per image."""
    return [SoftMasks(image_masks) for image_masks in masks]
