"""What all mappers share: from PIL images to tensors, from label maps to one mask per label."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from PIL import Image
from torch import Tensor

from maskclippp.data.mappers.color import SSDColorJitter
from maskclippp.errors import InputError
from maskclippp.files.images import check_record_size, read_image

IMAGE_FORMATS = ("RGB", "BGR")


def check_image_format(image_format: str) -> str:
    """Return ``image_format``; a ValueError names the valid ones."""
    if image_format not in IMAGE_FORMATS:
        raise InputError(f"INPUT.FORMAT: expected one of {IMAGE_FORMATS}, found {image_format!r}")
    return image_format


def read_record_image(record: dict[str, Any]) -> Image.Image:
    """Read the record's image as RGB; fills in ``height`` and ``width``, or checks them."""
    image = read_image(record["file_name"])
    check_record_size(record, image.height, image.width)
    record["height"], record["width"] = image.height, image.width
    return image


def image_to_tensor(
    image: Image.Image, image_format: str, jitter: SSDColorJitter | None = None
) -> Tensor:
    """uint8 [3, h, w] in ``image_format``, after the optional color changes."""
    pixels = np.array(image)
    if jitter is not None:
        pixels = jitter(pixels)
    channels = torch.from_numpy(pixels).permute(2, 0, 1)
    return (channels.flip(0) if image_format == "BGR" else channels).contiguous()


def masks_of_labels(label_map: Tensor, labels: Tensor) -> Tensor:
    """One boolean mask per entry of ``labels``: [n, h, w] from a label map [h, w]."""
    return label_map[None] == labels[:, None, None]


def make_instances(masks: Tensor, classes: Tensor, *, with_boxes: bool) -> Instances:
    """Training targets: ``gt_classes`` int64 [n], ``gt_masks`` bool [n, h, w], ``gt_boxes``."""
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.gt_classes = classes.long()
    instances.gt_masks = masks
    if with_boxes:
        instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    return instances


Mapper = Callable[[Mapping[str, Any]], dict[str, Any]]
