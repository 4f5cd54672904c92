"""The image of a record, as Pillow image and as tensor."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskclippp.data.mappers.color import SSDColorJitter
from maskclippp.files.images import check_record_size, read_image
from maskclippp.records import Record


def read_record_image(record: Record) -> Image.Image:
    """The record's image as RGB; an InputError if its size differs from the record's."""
    image = read_image(record["file_name"])
    check_record_size(record, image.height, image.width)
    return image


def image_to_tensor(image: Image.Image, jitter: SSDColorJitter | None = None) -> Tensor:
    """uint8 [3, h, w] of an RGB image, after the optional color changes."""
    pixels = np.array(image)
    if jitter is not None:
        pixels = jitter(pixels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
