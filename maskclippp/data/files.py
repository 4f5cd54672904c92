"""Reading images and label files; whatever is wrong with a file, the error names it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

LabelArray = npt.NDArray[np.int32]
T = TypeVar("T")


def read_image(path: str | Path) -> Image.Image:
    """Read an image as 8-bit RGB, turned upright as its EXIF orientation says.

    Raises FileNotFoundError or OSError naming the file and the reason.
    """

    def upright(image: Image.Image) -> Image.Image:
        return ImageOps.exif_transpose(image).convert("RGB")

    return _read(path, "image", upright)


def read_label_map(path: str | Path) -> LabelArray:
    """Read a single-channel file of class ids (8-bit or palette PNG, 16-bit TIFF): int32 [h, w].

    Raises FileNotFoundError, OSError (unreadable) or ValueError (several channels).
    """
    labels = _read(path, "label map", np.asarray)
    if labels.ndim != 2:
        raise ValueError(
            f"label map {path}: expected one channel of class ids, found an array of shape "
            f"{labels.shape}; if it is a panoptic PNG it must be converted first"
        )
    return labels.astype(np.int32)


def read_panoptic_ids(path: str | Path) -> LabelArray:
    """Read a COCO panoptic PNG: segment ids R + 256 G + 65536 B, int32 [h, w], 0 = no segment.

    Raises FileNotFoundError, OSError (unreadable) or ValueError (not RGB), naming the file.
    """
    colors = _read(path, "panoptic map", np.asarray)
    if colors.ndim != 3 or colors.shape[2] != 3:
        raise ValueError(
            f"panoptic map {path}: expected an RGB PNG, found an array of shape {colors.shape}"
        )
    channels = colors.astype(np.int32)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


def check_same_size(
    first: Sequence[int], first_file: str | Path, second: Sequence[int], second_file: str | Path
) -> None:
    """Raise ValueError naming both files and both (height, width) when the sizes differ."""
    if tuple(first) != tuple(second):
        raise ValueError(
            f"sizes differ: {first_file} is {first[0]} x {first[1]}, "
            f"{second_file} is {second[0]} x {second[1]} (height x width)"
        )


def check_record_size(record: Mapping[str, Any], height: int, width: int) -> None:
    """Raise ValueError when the record states another size than its image has."""
    expected = (record.get("height", height), record.get("width", width))
    if expected != (height, width):
        raise ValueError(
            f"image {record['file_name']} is {height} x {width}, but its annotation says "
            f"{expected[0]} x {expected[1]} (height x width)"
        )


def _read(path: str | Path, kind: str, decode: Callable[[Image.Image], T]) -> T:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{kind} {path} does not exist")
    try:
        with Image.open(path) as image:
            image.load()
            return decode(image)
    except (
        OSError,
        SyntaxError,  # how Pillow reports a broken PNG
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise OSError(f"{kind} {path} cannot be read: {error}") from error
