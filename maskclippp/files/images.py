"""Readers of images and label maps; every error names the file."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from PIL.PngImagePlugin import PngImageFile

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError
from maskclippp.files.signatures import first_bytes, foreign_kind

LabelArray = npt.NDArray[np.int32]
T = TypeVar("T")

# Pillow modes with more than 8 bits per channel; converting them to RGB clips values at 255.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
# WebP may be lossless, but cannot hold single-channel maps; panoptic maps are PNGs by definition.
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)
_TURNED_ORIENTATIONS = range(2, 9)  # mirrors and half turns as well
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,  # how Pillow reports a broken PNG
    ValueError,
    UnidentifiedImageError,
    # What its decoders raise on damaged files.
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, TypeError),
    *(RuntimeError, struct.error, zlib.error),
)
# No format that is a program for another program: Pillow runs Ghostscript on PostScript.
_FORMATS = (
    *("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000"),  # JPEG includes MPO
    *(("AVIF",) if features.check("avif") else ()),
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ImageHeader(NamedTuple):
    """The (height, width) of an image after EXIF orientation, which has ``turned`` it or not."""

    size: tuple[int, int]
    turned: bool


def read_image(path: str | Path, *, reduce_depth: bool = False) -> Image.Image:
    """Read an image as 8-bit RGB, rotated to its EXIF orientation.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: it cannot be decoded; gives the reason.
        InputError: see :func:`upright_rgb`.
    """
    image = _read(path, "image", _upright)
    return upright_rgb(image, f"image {path}", reduce_depth=reduce_depth)


def decode_image(content: bytes, name: str, *, reduce_depth: bool = False) -> Image.Image:
    """Like :func:`read_image`, of the content of a file; ``name`` is for messages."""
    image = _read(name, "image", _upright, content)
    return upright_rgb(image, f"image {name}", reduce_depth=reduce_depth)


def upright_rgb(image: Image.Image, what: str, *, reduce_depth: bool = False) -> Image.Image:
    """The image as 8-bit RGB, rotated to its EXIF orientation; opacity is ignored.

    Args:
        what: the image, for messages.
        reduce_depth: of gray images with 16 bits, keep the upper 8, as Pillow does with colors.

    Raises:
        InputError: it has more than 8 bits per channel.
    """
    image = ImageOps.exif_transpose(image)
    if reduce_depth and image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in _DEEP_MODES:
        raise InputError(
            f"{what} has more than 8 bits per channel (mode {image.mode}) and an unknown "
            "value range: convert it to 8 bits first"
        )
    return image.convert("RGB")


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the image that :func:`read_image` returns, read from the file header.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: the header cannot be decoded; gives the reason.
    """
    return read_image_header(path).size


def read_image_header(path: str | Path) -> ImageHeader:
    """Like :func:`read_image_size`, with the orientation."""

    def header(image: Image.Image) -> ImageHeader:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        height, width = image.height, image.width
        if orientation in _TRANSPOSED_ORIENTATIONS:
            height, width = width, height
        return ImageHeader((height, width), orientation in _TURNED_ORIENTATIONS)

    return _read(path, "image", header)


def read_label_map(path: str | Path) -> LabelArray:
    """Read a single-channel file of class ids (8-bit or palette PNG, 16-bit TIFF): int32 [h, w].

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: it cannot be decoded; gives the reason.
        InputError: it has several channels or is not of an integer type.
    """
    labels = _read(path, "label map", _exact_pixels)
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
    colors = _read(path, "panoptic map", _exact_pixels)
    if colors.ndim != 3 or colors.shape[2] != 3:
        raise InputError(
            f"panoptic map {path}: expected an RGB PNG, found an array of shape {colors.shape}"
        )
    channels = colors.astype(np.int32)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


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


def allow_pixels(number: int) -> None:
    """Set the number of pixels above which images are refused, in this process and its forks."""
    # Pillow refuses images of more than twice the number from which it warns.
    Image.MAX_IMAGE_PIXELS = number // 2


def _read(
    path: str | Path, kind: str, decode: Callable[[Image.Image], T], content: bytes | None = None
) -> T:
    """Decode a file, or its content if that is given."""
    if content is None and not Path(path).is_file():
        state = "is a folder, not a file" if Path(path).is_dir() else "does not exist"
        raise MissingFileError(f"{kind} {path} {state}")
    try:
        with Image.open(
            path if content is None else io.BytesIO(content), formats=_FORMATS
        ) as image:
            return decode(image)
    except UnidentifiedImageError as error:
        head = first_bytes(Path(path)) if content is None else content
        kind_found = foreign_kind(head) or "no picture of a known format"
        raise UnreadableFileError(f"{kind} {path} cannot be read: it is {kind_found}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableFileError(
            f"{kind} {path} cannot be read: {str(error).partition(',')[0]}; if you trust the "
            "file, allow it with INPUT.MAX_IMAGE_PIXELS"
        ) from error
    except _PILLOW_ERRORS as error:
        raise UnreadableFileError(f"{kind} {path} cannot be read: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    _load(image)
    return ImageOps.exif_transpose(image)


def _exact_pixels(image: Image.Image) -> npt.NDArray[Any]:
    """The pixels of a file format that keeps them as they are."""
    if image.format in _LOSSY_FORMATS:
        raise ValueError(
            f"it is a {image.format} file, whose compression changes values; save it as PNG"
        )
    _load(image)
    return np.asarray(image)


def _load(image: Image.Image) -> None:
    """Decode, with a PNG's checksums of pixels, which Pillow does not compare."""
    if isinstance(image, PngImageFile) and image.fp is not None:
        position = image.fp.tell()
        image.fp.seek(0)
        _check_png(image.fp.read())
        image.fp.seek(position)
    image.load()


def _check_png(content: bytes) -> None:
    """Raise a ValueError if a chunk of a PNG has been altered or cut off."""
    view, start = memoryview(content), len(_PNG_SIGNATURE)
    name = b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, start)
        end = start + 8 + length
        if zlib.crc32(view[start + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise ValueError(f"the checksum of its chunk {name!r} is wrong: it is damaged")
        start = end + 4
