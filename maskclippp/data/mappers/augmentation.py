"""The two ways in which images and their annotation are changed for training.

Every mapper is one of them with one kind of annotation.
"""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from maskclippp.data.mappers.color import SSDColorJitter
from maskclippp.data.mappers.common import check_image_format, image_to_tensor
from maskclippp.data.mappers.transforms import (
    FixedSizeCrop,
    LabelSampling,
    LargeScaleJitter,
    RandomCrop,
    RandomFlip,
    ResizeShortestEdge,
    pad_to,
)

# Padding in masks and in maps of segment ids.
NOTHING = 0


class LargeScaleJitterAugmentation:
    """Flip, jitter the scale, crop a fixed square, change colors (padding included).

    A call takes an image with its targets and returns the image, uint8 [3, side, side], and the
    targets; masks are padded with 0.
    """

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
                FixedSizeCrop(image_size, label_padding=NOTHING),
            ]
        )
        self.jitter = SSDColorJitter() if color_jitter else None
        self.image_format = check_image_format(image_format)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "LargeScaleJitterAugmentation":
        """As the INPUT section describes it."""
        return cls(
            image_size=cfg.INPUT.IMAGE_SIZE,
            min_scale=cfg.INPUT.MIN_SCALE,
            max_scale=cfg.INPUT.MAX_SCALE,
            random_flip=cfg.INPUT.RANDOM_FLIP,
            image_format=cfg.INPUT.FORMAT,
            color_jitter=cfg.INPUT.COLOR_AUG_SSD,
        )

    def __call__(self, image: Image.Image, *targets: tv_tensors.TVTensor) -> tuple[Any, ...]:
        image, *moved = self.geometry(image, *targets)
        return image_to_tensor(image, self.image_format, self.jitter), *moved


class ShortestEdgeAugmentation:
    """Resize the shorter side, crop, change colors, flip.

    A call takes an image with its targets and returns the image, uint8 [3, h, w], and the targets,
    before padding (see :meth:`pad`).

    Args:
        crop: None, or the crop to apply.
        label_sampling: of label maps that are resized.
        pad_size: pad to exactly this height and width, cutting what exceeds it; None: no padding.
    """

    def __init__(
        self,
        *,
        min_sizes: Sequence[int],
        max_size: int,
        min_size_sampling: str,
        label_sampling: LabelSampling,
        crop: RandomCrop | None,
        image_format: str,
        color_jitter: bool,
        pad_size: int | None,
    ) -> None:
        resize = ResizeShortestEdge(min_sizes, max_size, min_size_sampling, label_sampling)
        self.resize_and_crop = v2.Compose([resize] if crop is None else [resize, crop])
        self.flip = RandomFlip("horizontal")
        self.jitter = SSDColorJitter() if color_jitter else None
        self.image_format = check_image_format(image_format)
        self.pad_size = pad_size

    @classmethod
    def from_config(
        cls, cfg: CfgNode, *, label_sampling: LabelSampling, limit_categories: bool
    ) -> "ShortestEdgeAugmentation":
        """As the INPUT section describes it.

        ``limit_categories``: crops obey INPUT.CROP.SINGLE_CATEGORY_MAX_AREA, for which one of the
        targets must be a map of class ids.
        """
        node = cfg.INPUT.CROP
        share = node.SINGLE_CATEGORY_MAX_AREA if limit_categories else 1.0
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        return cls(
            min_sizes=cfg.INPUT.MIN_SIZE_TRAIN,
            max_size=cfg.INPUT.MAX_SIZE_TRAIN,
            min_size_sampling=cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            label_sampling=label_sampling,
            crop=RandomCrop(node.TYPE, node.SIZE, share, ignored) if node.ENABLED else None,
            image_format=cfg.INPUT.FORMAT,
            color_jitter=cfg.INPUT.COLOR_AUG_SSD,
            pad_size=cfg.INPUT.SIZE_DIVISIBILITY if cfg.INPUT.SIZE_DIVISIBILITY > 0 else None,
        )

    def __call__(self, image: Image.Image, *targets: tv_tensors.TVTensor) -> tuple[Any, ...]:
        image, *moved = self.resize_and_crop(image, *targets)
        tensor = image_to_tensor(image, self.image_format, self.jitter)
        return tuple(self.flip(tv_tensors.Image(tensor), *moved))

    def pad(self, item: tv_tensors.TVTensor, label_padding: int = NOTHING) -> Tensor:
        """The image, padded with 128, or a label map, as a plain tensor of the final size."""
        if self.pad_size is not None:
            item = pad_to(item, self.pad_size, self.pad_size, label_padding)
        return item.as_subclass(Tensor).contiguous()
