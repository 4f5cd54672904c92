"""From a dataset's own label values to class ids 0..K-1, and from masks to segment entries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskclippp.errors import InputError
from maskclippp.files.images import LabelArray


def renumber(
    labels: LabelArray,
    class_values: Sequence[int],
    *,
    ignored_values: Sequence[int] | None,
    ignore_label: int,
) -> npt.NDArray[Any]:
    """Class ids of a label map.

    Args:
        labels: the dataset's values [h, w].
        class_values: the value of class 0, of class 1, ...
        ignored_values: values that become ``ignore_label``; None: all others.
        ignore_label: 255 for uint8, 65535 for uint16.

    Returns:
        Class ids [h, w], uint8 or uint16.

    Raises:
        InputError: values that are neither classes nor ignored; gives one and the pixel count.
    """
    ids = np.full(65536, -1 if ignored_values is not None else ignore_label, np.int32)
    if ignored_values is not None:
        ids[list(ignored_values)] = ignore_label
    ids[list(class_values)] = np.arange(len(class_values))
    if labels.size and not 0 <= labels.min() <= labels.max() < len(ids):
        raise InputError(f"labels {labels.min()}..{labels.max()}, expected at most 16 bits")
    result = ids[labels]
    if (result < 0).any():
        raise InputError(
            f"value {int(labels[result < 0][0])} is not a class (invalid values at "
            f"{int((result < 0).sum())} pixels); classes have the {len(class_values)} values "
            f"{min(class_values)}..{max(class_values)}, ignored is {list(ignored_values or ())}"
        )
    return result.astype(np.uint8 if ignore_label == 255 else np.uint16)


def bounding_box(mask: npt.NDArray[np.bool_]) -> list[int]:
    """[x, y, width, height] of a boolean mask [h, w] in pixels, both ends included."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def segment_entry(
    mask: npt.NDArray[np.bool_], segment_id: int, category_id: int, *, is_crowd: bool = False
) -> dict[str, Any]:
    """The entry of a segment in COCO's panoptic JSON; ``mask`` [h, w] must not be empty."""
    return {
        "id": segment_id,
        "category_id": category_id,
        "area": int(mask.sum()),
        "bbox": bounding_box(mask),
        "iscrowd": int(is_crowd),
    }
