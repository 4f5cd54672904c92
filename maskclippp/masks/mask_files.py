"""Read and write files with the masks of one image, in common formats.

The suffix of the name selects the format:

- ``.npz``: an array ``masks`` with the content of a ``.npy`` file.
- ``.npy``: [Q, H, W] masks (bool, integers with 0 for outside, or probabilities as floats), or
  [H, W] integer ids.
- ``.png``, ``.tif``, ``.tiff``: [H, W] ids, 8 or 16 bit, one channel or palette.
- ``.json``: a list of COCO run-length encodings, or of objects that contain them as
  ``segmentation`` (written by Segment Anything), or an object with such a list as ``annotations``.

In an id map every positive number is one mask, in ascending order; 0 and negative numbers belong
to no mask.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.atomic import atomic_write
from maskclippp.files.images import read_label_map
from maskclippp.files.json_files import read_json
from maskclippp.masks.array_files import check_shape, check_size, read_array
from maskclippp.masks.run_length import decode_checked, encode_mask

_PICTURES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
FORMATS = (".json", ".npy", ".npz", *_PICTURES)

BoolArray = NDArray[np.bool_]


def check_format(name: str, what: str) -> str:
    """The suffix of a file ``name``; an InputError about ``what`` if it is not in FORMATS."""
    ending = Path(name).suffix
    if ending not in FORMATS:
        raise InputError(f"{what}: expected a name that ends with one of {FORMATS}, found {name!r}")
    return ending


def read_masks(path: Path, size: tuple[int, int]) -> Tensor:
    """Read masks [Q, H, W], bool or floats in [0, 1]; Q may be 0.

    Args:
        path: the mask file.
        size: original height and width of the image.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: the file cannot be read.
        InputError: the file contains something other than masks, or masks of another size.
    """
    ending = check_format(path.name, f"mask file {path}")
    if not path.is_file():
        raise MissingFileError(f"mask file {path} does not exist")
    if ending == ".json":
        return _read_json(path, size)
    where = f"mask file {path}"
    array = read_label_map(path) if ending in _PICTURES else read_array(path, size, where)
    return masks_of_array(array, size, where)


def masks_of_array(array: NDArray[Any], size: tuple[int, int], where: str) -> Tensor:
    """Masks of an array of one image, as :func:`read_masks`; an InputError starts with ``where``.

    Args:
        array: [Q, H, W] masks or [H, W] ids.
        size: original height and width of the image.
        where: the file, and the place in it.
    """
    check_shape(array.shape, size, where)
    masks = _masks_of_ids(array, where) if array.ndim == 2 else _masks_of_stack(array, where)
    return torch.from_numpy(masks)


def masks_of_codes(entries: Sequence[Any], size: tuple[int, int], where: str) -> Tensor:
    """Bool masks [Q, H, W] of run-length encodings; an InputError starts with ``where``.

    Args:
        entries: encodings, or objects that hold them as ``segmentation``.
        size: original height and width of the image.
        where: the file, and the place in it.
    """
    check_shape((len(entries), *size), size, where)
    masks = np.zeros((len(entries), *size), dtype=np.bool_)
    for index, entry in enumerate(entries):
        masks[index] = _decode(entry, size, f"{where}: mask {index}")
    return torch.from_numpy(masks)


def write_masks(path: Path, masks: Tensor) -> None:
    """Write bool masks [Q, H, W] atomically, in the format that the suffix selects.

    Raises:
        InputError: an unknown suffix, or masks that a picture cannot represent: empty masks,
            overlapping masks, or more than 65535.
    """
    ending = check_format(path.name, "mask file")
    array = masks.cpu().numpy()
    if ending in _PICTURES:
        array = _ids_of_masks(array, path)
    with atomic_write(path) as file:
        _write(file, ending, array)


def _write(file: BinaryIO, ending: str, array: NDArray[Any]) -> None:
    if ending == ".npz":
        np.savez_compressed(file, masks=array)
    elif ending == ".npy":
        np.save(file, array, allow_pickle=False)
    elif ending in _PICTURES:
        Image.fromarray(array).save(file, format=_PICTURES[ending])
    else:
        file.write(json.dumps([encode_mask(mask) for mask in array]).encode())


def _masks_of_stack(stack: NDArray[Any], where: str) -> NDArray[Any]:
    """Numbers [Q, H, W] -> bool, or float32 in [0, 1]."""
    if stack.dtype.kind in "bui":
        masks: BoolArray = stack != 0
        return masks
    if stack.dtype.kind != "f":
        raise InputError(f"{where}: expected numbers, found {stack.dtype}")
    # Written so that NaN is rejected too.
    if stack.size and not (stack.min() >= 0 and stack.max() <= 1):
        raise InputError(
            f"{where}: expected probabilities in 0..1, found {stack.min():g} to "
            f"{stack.max():g}: apply the sigmoid, or save masks as bool"
        )
    return stack.astype(np.float32)


def _masks_of_ids(ids: NDArray[Any], where: str) -> BoolArray:
    if ids.dtype.kind not in "bui":
        raise InputError(
            f"{where}: expected whole numbers in an [H, W] map of ids, found {ids.dtype}"
        )
    present = np.unique(ids[ids > 0])
    check_shape((len(present), *ids.shape), ids.shape, where)
    masks: BoolArray = ids[None] == present[:, None, None]
    return masks


def _ids_of_masks(masks: BoolArray, path: Path) -> NDArray[Any]:
    """Mask i gets the id i + 1; 8 bit if possible, else 16 bit."""
    overlap = int((masks.sum(axis=0) > 1).sum())
    empty = int((~masks.any(axis=(1, 2))).sum())
    if overlap or empty or len(masks) > np.iinfo(np.uint16).max:
        raise InputError(
            f"mask file {path}: a {_PICTURES[path.suffix]} cannot hold {len(masks)} masks of which "
            f"{empty} are empty and that overlap in {overlap} pixels: choose npz or json"
        )
    ids = np.zeros(masks.shape[1:], dtype=np.uint8 if len(masks) < 256 else np.uint16)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return ids


def _read_json(path: Path, size: tuple[int, int]) -> Tensor:
    content: Any = read_json(path, Any, "a mask file")
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise InputError(
            f"mask file {path}: expected a list of COCO run-length encodings, or an object with "
            "such a list as 'annotations'"
        )
    return masks_of_codes(entries, size, f"mask file {path}")


def _decode(entry: Any, size: tuple[int, int], where: str) -> BoolArray:
    code = entry.get("segmentation", entry) if isinstance(entry, dict) else entry
    if not isinstance(code, dict) or not isinstance(code.get("size"), list) or "counts" not in code:
        raise InputError(
            f"{where}: expected a COCO run-length encoding with 'size' and 'counts'; polygons "
            "must be converted with pycocotools first"
        )
    check_size(code["size"], size, where)
    try:
        return decode_checked(code)
    except InputError as error:
        raise InputError(f"{where} is not a valid run-length encoding: {error}") from error
