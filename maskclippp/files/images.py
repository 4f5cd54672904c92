"""Reading images, labels and annotations; whatever is wrong with a file, the error names it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError

LabelArray = npt.NDArray[np.int32]
T = TypeVar("T")

# Pillow's names of pictures with more than 8 bits per channel, which it would cut off at 255.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,  # how Pillow reports a broken PNG
    ValueError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)


def read_image(path: str | Path) -> Image.Image:
    """Read an image as 8-bit RGB, turned upright as its EXIF orientation says.

    Raises FileNotFoundError, OSError (unreadable, with the reason) or ValueError (more than 8 bits
    per channel), naming the file.
    """
    image = _read(path, "image", _upright)
    if image.mode in _DEEP_MODES:
        raise InputError(
            f"image {path} has more than 8 bits per channel (mode {image.mode}), and nothing says "
            "which values are black and white: convert it to 8 bits first"
        )
    return image.convert("RGB")


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as :func:`read_image` returns it, from its header.

    Raises FileNotFoundError or OSError naming the file and the reason.
    """

    def upright_size(image: Image.Image) -> tuple[int, int]:
        if image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED_ORIENTATIONS:
            return image.width, image.height
        return image.height, image.width

    return _read(path, "image", upright_size)


def read_label_map(path: str | Path) -> LabelArray:
    """Read a single-channel file of class ids (8-bit or palette PNG, 16-bit TIFF): int32 [h, w].

    Raises FileNotFoundError, OSError (unreadable) or ValueError (several channels, or numbers that
    are not whole).
    """
    labels = _read(path, "label map", _pixels)
    if labels.ndim != 2:
        raise InputError(
            f"label map {path}: expected one channel of class ids, found an array of shape "
            f"{labels.shape}; if it is a panoptic PNG it must be converted first"
        )
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"label map {path}: expected whole numbers, found {labels.dtype} (mode F): class ids "
            "must be saved as integers"
        )
    return labels.astype(np.int32)


def read_panoptic_ids(path: str | Path) -> LabelArray:
    """Read a COCO panoptic PNG: segment ids R + 256 G + 65536 B, int32 [h, w], 0 = no segment.

    Raises FileNotFoundError, OSError (unreadable) or ValueError (not RGB), naming the file.
    """
    colors = _read(path, "panoptic map", _pixels)
    if colors.ndim != 3 or colors.shape[2] != 3:
        raise InputError(
            f"panoptic map {path}: expected an RGB PNG, found an array of shape {colors.shape}"
        )
    channels = colors.astype(np.int32)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


def read_json(
    path: str | Path, required_keys: Mapping[str, Sequence[str]], what: str
) -> dict[str, Any]:
    """Read an annotation file: a JSON object of lists of objects.

    Args:
        required_keys: the lists that must be there, each with the keys that its entries must have.
        what: what the file is needed as, for messages.

    Raises FileNotFoundError or ValueError (no JSON, a list or key that is missing), naming file,
    list, entry and key.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; it is needed as {what}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON ({error}); it is needed as {what}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no JSON object, as {what} must be")
    for name, keys in required_keys.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            raise InputError(
                f"{path} is not {what}: it needs a list {name!r} and has only the keys "
                f"{sorted(content)}"
                if name not in content
                else f"{path} is not {what}: {name!r} must be a list, found {_kind(entries)}"
            )
        for index, entry in enumerate(entries):
            missing = keys if not isinstance(entry, dict) else [k for k in keys if k not in entry]
            if missing:
                raise InputError(
                    f"{path}: {name}[{index}] lacks {', '.join(missing)}; found "
                    + (f"only {sorted(entry)}" if isinstance(entry, dict) else _kind(entry))
                )
    return content


def check_same_size(
    first: Sequence[int], first_file: str | Path, second: Sequence[int], second_file: str | Path
) -> None:
    """Raise ValueError naming both files and both (height, width) when the sizes differ."""
    if tuple(first) != tuple(second):
        raise InputError(
            f"sizes differ: {first_file} is {first[0]} x {first[1]}, "
            f"{second_file} is {second[0]} x {second[1]} (height x width)"
        )


def check_record_size(record: Mapping[str, Any], height: int, width: int) -> None:
    """Raise ValueError when the record states another size than its image has."""
    expected = (record.get("height", height), record.get("width", width))
    if expected != (height, width):
        raise InputError(
            f"image {record['file_name']} is {height} x {width}, but its annotation says "
            f"{expected[0]} x {expected[1]} (height x width)"
        )


def _read(path: str | Path, kind: str, decode: Callable[[Image.Image], T]) -> T:
    if not Path(path).is_file():
        raise MissingFileError(f"{kind} {path} does not exist")
    try:
        with Image.open(path) as image:
            return decode(image)
    except _PILLOW_ERRORS as error:
        raise UnreadableFileError(f"{kind} {path} cannot be read: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    return ImageOps.exif_transpose(image)


def _pixels(image: Image.Image) -> npt.NDArray[Any]:
    image.load()
    return np.asarray(image)


def _kind(value: Any) -> str:
    """What a value read from JSON is, in JSON's words."""
    names = {type(None): "null", dict: "an object", list: "a list", str: "a text", bool: "a bool"}
    return names.get(type(value), "a number")
