"""The two training augmentations of images with their annotation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from maskclippp.data.mappers.color import SSDColorJitter
from maskclippp.data.mappers.images import image_to_tensor
from maskclippp.data.mappers.transforms import (
    FixedSizeCrop,
    LargeScaleJitter,
    RandomCrop,
    RandomFlip,
    ResizeShortestEdge,
    pad_to,
)


class Augmented(NamedTuple):
    """An augmented image with its annotation.

    ``image`` is uint8 [3, h, w]; ``parts`` are plain tensors, maps [..., h, w] or vertices [n, 2];
    ``content`` (height, width) is the size of the image before it is padded or cut to [h, w] at the
    right and bottom; polygons are drawn on a ``canvas`` (height, width).
    """

    image: Tensor
    parts: tuple[Tensor, ...]
    content: tuple[int, int]
    canvas: tuple[int, int]


Augmentation = Callable[..., Augmented]
"""``(image: PIL.Image, *parts: TVTensor) -> Augmented``."""


class LargeScaleJitterAugmentation:
    """Flip, jitter the scale, crop a fixed square, pad, change colors (including the padding)."""

    def __init__(
        self,
        *,
        image_size: int,
        min_scale: float,
        max_scale: float,
        random_flip: str,
        color_jitter: bool,
    ) -> None:
        flip, scale = RandomFlip(random_flip), LargeScaleJitter(image_size, min_scale, max_scale)
        self.geometry = v2.Compose([flip, scale, FixedSizeCrop(image_size)])
        self.jitter = SSDColorJitter() if color_jitter else None
        self.size = (image_size, image_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "LargeScaleJitterAugmentation":
        """From the INPUT section."""
        return cls(
            image_size=cfg.INPUT.IMAGE_SIZE,
            min_scale=cfg.INPUT.MIN_SCALE,
            max_scale=cfg.INPUT.MAX_SCALE,
            random_flip=cfg.INPUT.RANDOM_FLIP,
            color_jitter=cfg.INPUT.COLOR_AUG_SSD,
        )

    def __call__(self, image: Image.Image, *parts: tv_tensors.TVTensor) -> Augmented:
        image, *moved = self.geometry(image, *parts)
        content = (image.height, image.width)
        image, *moved = (pad_to(item, self.size) for item in (image, *moved))
        return Augmented(
            image_to_tensor(image, self.jitter),
            tuple(part.as_subclass(Tensor) for part in moved),
            content=content,
            canvas=self.size,
        )


class ShortestEdgeAugmentation:
    """Resize the shorter side, crop, change colors, flip, pad.

    Args:
        pad_size: height and width to pad or cut to; None: no padding.
        label_padding: class id of the padding.
    """

    def __init__(
        self,
        *,
        min_sizes: Sequence[int],
        max_size: int,
        min_size_sampling: str,
        crop: RandomCrop | None,
        color_jitter: bool,
        pad_size: int | None,
        label_padding: int,
    ) -> None:
        resize = ResizeShortestEdge(min_sizes, max_size, min_size_sampling)
        self.resize_and_crop = v2.Compose([resize] if crop is None else [resize, crop])
        self.flip = RandomFlip("horizontal")
        self.jitter = SSDColorJitter() if color_jitter else None
        self.size = None if pad_size is None else (pad_size, pad_size)
        self.label_padding = label_padding

    @classmethod
    def from_config(
        cls, cfg: CfgNode, ignore_label: int | None = None
    ) -> "ShortestEdgeAugmentation":
        """From the INPUT section.

        INPUT.CROP.SINGLE_CATEGORY_MAX_AREA needs class ids among the parts; ``ignore_label`` is
        theirs, or None if there are none.
        """
        node = cfg.INPUT.CROP
        share = 1.0 if ignore_label is None else node.SINGLE_CATEGORY_MAX_AREA
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        return cls(
            min_sizes=cfg.INPUT.MIN_SIZE_TRAIN,
            max_size=cfg.INPUT.MAX_SIZE_TRAIN,
            min_size_sampling=cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            crop=RandomCrop(node.TYPE, node.SIZE, share, ignored) if node.ENABLED else None,
            color_jitter=cfg.INPUT.COLOR_AUG_SSD,
            pad_size=cfg.INPUT.SIZE_DIVISIBILITY if cfg.INPUT.SIZE_DIVISIBILITY > 0 else None,
            label_padding=0 if ignore_label is None else ignore_label,
        )

    def __call__(self, image: Image.Image, *parts: tv_tensors.TVTensor) -> Augmented:
        image, *moved = self.resize_and_crop(image, *parts)
        content = (image.height, image.width)
        colored = tv_tensors.Image(image_to_tensor(image, self.jitter))
        items = self.flip(colored, *moved)
        if self.size is not None:
            items = [pad_to(item, self.size, self.label_padding) for item in items]
        tensor, *flipped = (item.as_subclass(Tensor).contiguous() for item in items)
        return Augmented(tensor, tuple(flipped), content=content, canvas=content)
