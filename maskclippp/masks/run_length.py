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

_CHECKED_TOGETHER = 1000  # codes; the numbers of so many take some MB
_MAX_DIGITS = 7  # of five bits: more than any image has pixels
_SHOWN = 80


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
    wrong = first_invalid([code])
    if wrong is not None:
        raise InputError(wrong[1])
    return decode(code).astype(np.bool_)


def first_invalid(codes: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """The index of the first code whose runs do not fill its size, and what is wrong; or None."""
    for start in range(0, len(codes), _CHECKED_TOGETHER):
        part = codes[start : start + _CHECKED_TOGETHER]
        texts = [i for i, code in enumerate(part) if isinstance(code["counts"], str | bytes)]
        reasons = dict(zip(texts, _text_problems([part[i] for i in texts]), strict=True))
        for index, code in enumerate(part):
            reason = reasons[index] if index in reasons else _list_problem(code)
            if reason:
                return start + index, reason
    return None


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


def _list_problem(code: Mapping[str, Any]) -> str:
    """What is wrong with a code whose counts are a list, or should be one; empty if nothing."""
    counts, (height, width) = code["counts"], code["size"]
    if not isinstance(counts, list) or {int} < {int, *map(type, counts)}:
        return f"its counts are {counts!r}"[:_SHOWN]
    if min(counts, default=0) < 0:
        return "it has runs of less than no pixel"
    if sum(counts) != height * width:
        return f"its runs add up to {sum(counts)} pixels"
    return ""


def _text_problems(codes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for compressed codes, all at once.

    Every number is written in digits of five bits, lowest first; a sixth bit says whether more
    digits follow, and the last digit carries the sign. From the fourth number on, a number is the
    difference to the one two places before.
    """
    counts = [c if isinstance(c, bytes) else c.encode() for c in (code["counts"] for code in codes)]
    problems = ["" if _is_complete(text) else "it ends within a number" for text in counts]
    whole = [index for index, problem in enumerate(problems) if not problem]
    if not whole:
        return problems
    texts = [counts[index] for index in whole]
    digits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * place.clip(max=_MAX_DIGITS)), first)
    numbers -= np.where(digits[last] & 16, 1 << (5 * lengths.clip(max=_MAX_DIGITS)), 0)
    ends = np.searchsorted(last, np.cumsum([len(text) for text in texts]) - 1) + 1
    starts = np.concatenate([[0], ends[:-1]])
    runs = _undo_differences(numbers, starts, ends)
    valid = (lengths <= _MAX_DIGITS) & (runs >= 0)
    are_runs = np.logical_and.reduceat(valid, starts)
    sums = np.add.reduceat(runs, starts)
    for index, is_code, pixels in zip(whole, are_runs, sums, strict=True):
        height, width = codes[index]["size"]
        if not is_code or pixels != height * width:
            problems[index] = f"its runs add up to {pixels} pixels" if is_code else "it has no runs"
    return problems


def _is_complete(counts: bytes) -> bool:
    """Whether all characters are the codec's, and the last one ends a number."""
    zero = ord("0")
    within = bool(counts) and zero <= min(counts) and max(counts) < zero + 64
    return within and not (counts[-1] - zero) & 32


def _undo_differences(
    numbers: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Runs from the numbers of several codes, of which each is ``numbers[start:end]``."""
    position = np.arange(len(numbers)) - np.repeat(starts, ends - starts)
    runs = numbers.copy()
    for chain in (position % 2 == 1, (position % 2 == 0) & (position > 0)):
        sums = np.cumsum(np.where(chain, numbers, 0))
        before = np.repeat(np.concatenate([[0], sums])[starts], ends - starts)
        runs[chain] = (sums - before)[chain]
    return runs
