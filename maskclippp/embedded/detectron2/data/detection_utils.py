"""Reads images."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from detectron2.utils.file_io import PathManager

__all__ = ["SizeMismatchError", "check_image_size", "read_image"]


class SizeMismatchError(ValueError):
    """The size of an image differs from that in its record."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """The image, rotated as its EXIF orientation says, as uint8 [H, W, C] ([H, W, 1] for ``L``).

    Args:
        format: a mode of PIL, or ``"BGR"``; None: the file's own mode.
    """
    with PathManager.open(file_name, "rb") as file:
        image: Image.Image = ImageOps.exif_transpose(Image.open(file))
        if format is not None:
            image = image.convert("RGB" if format == "BGR" else format)
        array = np.asarray(image)
    if format == "BGR":
        return array[:, :, ::-1]
    return array[:, :, None] if format == "L" else array


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Check an image against its record's ``width`` and ``height``; set them if missing.

    Raises:
        SizeMismatchError: names the file and both sizes.
    """
    height, width = image.shape[:2]
    expected = (dataset_dict.setdefault("width", width), dataset_dict.setdefault("height", height))
    if expected != (width, height):
        raise SizeMismatchError(
            f"Mismatched image shape for image {dataset_dict.get('file_name', '')}: the file is "
            f"{width} x {height}, the annotation says {expected[0]} x {expected[1]} "
            "(width x height)"
        )
