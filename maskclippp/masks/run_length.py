"""COCO run-length encoding of binary masks, the only module that talks to pycocotools' codec.

A code is ``{"size": [height, width], "counts": ...}``. The counts are the lengths of runs of equal
pixels, column by column, the first run outside the mask: a list, or COCO's compressed string.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_codec
from torch import Tensor

from maskclippp.errors import InputError


class RunLengthCode(TypedDict):
    """A compressed code; ``counts`` is text, so that the code can go into a JSON."""

    size: list[int]
    counts: str


def encode_masks(masks: Tensor) -> list[RunLengthCode]:
    """Compressed codes of bool masks [n, h, w], the same as those of pycocotools."""
    return [encode_mask(mask) for mask in masks.cpu().bool().numpy()]


def encode_mask(mask: NDArray[np.bool_]) -> RunLengthCode:
    """Compressed code of a bool mask [h, w].

    Only the columns that the mask touches are scanned: several times faster for small objects.
    """
    height, width = mask.shape
    code = mask_codec.frPyObjects(
        {"size": [height, width], "counts": _run_lengths(mask)}, height, width
    )
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def compress(code: Mapping[str, Any]) -> Mapping[str, Any]:
    """The code with compressed counts; a code that is compressed already is returned as it is."""
    if not isinstance(code["counts"], list):
        return code
    compressed: dict[str, Any] = mask_codec.frPyObjects(code, *code["size"])
    return compressed


def decode(code: Mapping[str, Any]) -> NDArray[np.uint8]:
    """uint8 [h, w] with values 0 and 1 of a code from a trusted file, compressed or not."""
    return np.asarray(mask_codec.decode(compress(code)), dtype=np.uint8)


def decode_checked(code: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Bool [h, w] of a code that may be damaged.

    Raises:
        InputError: the runs do not add up to the size, or are not runs at all. (The codec itself
            would return uninitialized memory for the missing pixels.)
    """
    counts, (height, width) = code["counts"], code["size"]
    try:
        if not isinstance(counts, list | str):
            raise TypeError(f"its counts are {counts!r}")
        runs = _decompress(counts) if isinstance(counts, str) else counts
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise InputError(f"its runs add up to {sum(runs)} pixels")
        return decode(code).astype(np.bool_)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(str(error)) from error


def area(code: Mapping[str, Any]) -> int:
    """Number of pixels inside the mask of a compressed code."""
    return int(mask_codec.area(code))


def box(code: Mapping[str, Any]) -> list[float]:
    """Bounding box x, y, width, height of the mask of a compressed code; zeros when empty."""
    return [float(side) for side in mask_codec.toBbox(code)]


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bool [h, w]: the union of polygons [x1, y1, x2, y2, ...], rasterized as COCO does."""
    if not polygons:
        return np.zeros(size, dtype=np.bool_)
    code = mask_codec.merge(mask_codec.frPyObjects(polygons, *size))
    return np.asarray(mask_codec.decode(code), dtype=np.bool_)


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    touched = np.flatnonzero(mask.any(axis=0))
    if not touched.size:
        return [mask.size]
    first, end = touched[0], touched[-1] + 1
    inside = np.pad(mask[:, first:end].T.ravel(), 1)
    changes = np.flatnonzero(inside[1:] != inside[:-1]) + first * mask.shape[0]
    lengths: list[int] = np.diff(changes, prepend=0, append=mask.size).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def _decompress(counts: str) -> list[int]:
    """Run lengths of a compressed string.

    Every number is written in digits of five bits, lowest first; a sixth bit says whether more
    digits follow, and the last digit carries the sign. From the fourth number on, a number is the
    difference to the one two places before.
    """
    digits = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    if not len(digits) or digits[-1] & 32:
        raise InputError("it ends within a number")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((digits & 31) << (5 * place), first)
    numbers -= np.where(digits[last] & 16, 1 << (5 * (last - first + 1)), 0)
    numbers[2::2], numbers[1::2] = numbers[2::2].cumsum(), numbers[1::2].cumsum()
    runs: list[int] = numbers.tolist()
    return runs
