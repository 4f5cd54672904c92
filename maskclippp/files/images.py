"""Readers of images, label maps and annotation files; every error names the file."""

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

# Pillow modes with more than 8 bits per channel; converting them to RGB clips values at 255.
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
    """Read an image as 8-bit RGB, rotated to its EXIF orientation.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: it cannot be decoded; gives the reason.
        InputError: it has more than 8 bits per channel.
    """
    image = _read(path, "image", _upright)
    if image.mode in _DEEP_MODES:
        raise InputError(
            f"image {path} has more than 8 bits per channel (mode {image.mode}) and an unknown "
            "value range: convert it to 8 bits first"
        )
    return image.convert("RGB")


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the image that :func:`read_image` returns, read from the file header.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: the header cannot be decoded; gives the reason.
    """

    def upright_size(image: Image.Image) -> tuple[int, int]:
        if image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED_ORIENTATIONS:
            return image.width, image.height
        return image.height, image.width

    return _read(path, "image", upright_size)


def read_label_map(path: str | Path) -> LabelArray:
    """Read a single-channel file of class ids (8-bit or palette PNG, 16-bit TIFF): int32 [h, w].

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: it cannot be decoded; gives the reason.
        InputError: it has several channels or is not of an integer type.
    """
    labels = _read(path, "label map", _pixels)
    if labels.ndim != 2:
        raise InputError(
            f"label map {path}: expected one channel of class ids, found an array of shape "
            f"{labels.shape}; if it is a panoptic PNG it must be converted first"
        )
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"label map {path}: expected integers, found {labels.dtype} (mode F): save class ids "
            "as integers"
        )
    return labels.astype(np.int32)


def read_panoptic_ids(path: str | Path) -> LabelArray:
    """Read a COCO panoptic PNG: segment ids R + 256 G + 65536 B, int32 [h, w], 0 = no segment.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: it cannot be decoded; gives the reason.
        InputError: it is not RGB.
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
    """Read an annotation file: a JSON object whose values are lists of objects.

    Args:
        required_keys: required lists, each with the keys that its entries must have.
        what: purpose of the file, for messages.

    Raises:
        MissingFileError: the file does not exist.
        InputError: it is not valid JSON, or a list or key is missing; names list, entry and key.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; it is needed as {what}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); it is needed as {what}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object, as {what} must be")
    for name, keys in required_keys.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            raise InputError(
                f"{path} is not {what}: it needs a list {name!r} but has only the keys "
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
    """Raise an InputError naming both files and their (height, width) if the sizes differ."""
    if tuple(first) != tuple(second):
        raise InputError(
            f"sizes differ: {first_file} is {first[0]} x {first[1]}, "
            f"{second_file} is {second[0]} x {second[1]} (height x width)"
        )


def check_record_size(record: Mapping[str, Any], height: int, width: int) -> None:
    """Raise an InputError if the image's size differs from the one in its record."""
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
    """The JSON type of a value, for messages."""
    names = {type(None): "null", dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), "a boolean" if isinstance(value, bool) else "a number")
