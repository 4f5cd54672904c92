"""COCO's run-length codes of masks."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_codec
from torch import Tensor


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Compressed codes (``size``, ``counts`` as text) of boolean masks [n, h, w].

    As pycocotools encodes them; only the columns that a mask touches are looked at, which for
    objects in an image is several times faster.
    """
    height, width = masks.shape[1:]
    runs = [
        {"size": [height, width], "counts": _run_lengths(mask)}
        for mask in masks.cpu().bool().numpy()
    ]
    codes = mask_codec.frPyObjects(runs, height, width) if runs else []
    return [{"size": code["size"], "counts": code["counts"].decode("ascii")} for code in codes]


def _run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of equal pixels, column by column; the first run is outside the mask."""
    touched = np.flatnonzero(mask.any(axis=0))
    if not touched.size:
        return [mask.size]
    first, end = touched[0], touched[-1] + 1
    inside = np.pad(mask[:, first:end].T.ravel(), 1)
    changes = np.flatnonzero(inside[1:] != inside[:-1]) + first * mask.shape[0]
    lengths: list[int] = np.diff(changes, prepend=0, append=mask.size).tolist()
    return lengths if lengths[-1] else lengths[:-1]
