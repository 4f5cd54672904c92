"""Semantic label maps: read from their file, or derived from the panoptic annotation.

The derivation is exact: every listed segment, including crowds, is painted with its class, and all
other pixels are ignored. The files in ``panoptic_semseg_*`` are made in the same way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.images import LabelArray, read_label_map, read_panoptic_ids


class SemanticLabels(NamedTuple):
    """``labels``, int32 [h, w], and ``source``, the file they come from."""

    labels: LabelArray
    source: str


class LabelValues(NamedTuple):
    """Meaning of the pixel values of a label file that does not hold contiguous class ids.

    ``classes`` are the values of the classes, in their order; ``ignored`` is the value of unlabeled
    pixels. Records store it under ``sem_seg_values``.
    """

    classes: tuple[int, ...]
    ignored: int

    def positions(self, labels: LabelArray, ignore_label: int, source: str) -> LabelArray:
        """Class ids, int32 [h, w], with ``ignore_label`` at ignored pixels.

        Raises:
            InputError: a value is neither a class nor the ignored one; names file and value.
        """
        values = np.array(self.classes, dtype=np.int32)
        order = np.argsort(values)
        nearest = np.searchsorted(values, labels, sorter=order).clip(max=len(values) - 1)
        found = order[nearest]
        known = values[found] == labels
        invalid = ~known & (labels != self.ignored)
        if invalid.any():
            raise InputError(
                f"label file {source}: pixel value {int(labels[invalid][0])} (invalid values at "
                f"{int(invalid.sum())} pixels); the word list numbers {len(values)} classes from "
                f"{values.min()} to {values.max()}, and {self.ignored} is the ignored value"
            )
        return np.where(known, found, ignore_label).astype(np.int32)


def semantic_from_panoptic(
    panoptic_ids: LabelArray, segments_info: Sequence[Mapping[str, Any]], ignore_label: int
) -> LabelArray:
    """Paint each segment with its class.

    Args:
        panoptic_ids: segment ids [h, w].
        segments_info: entries with ``id`` and ``category_id`` (contiguous).
        ignore_label: value of pixels that belong to no listed segment.

    Returns:
        Class ids, int32 [h, w].
    """
    if not segments_info:
        return np.full_like(panoptic_ids, ignore_label)
    classes = {int(s["id"]): int(s["category_id"]) for s in segments_info}
    segment_ids = np.array(sorted(classes), dtype=np.int32)
    segment_classes = np.array([classes[int(i)] for i in segment_ids], dtype=np.int32)
    position = np.searchsorted(segment_ids, panoptic_ids).clip(max=len(segment_ids) - 1)
    listed = segment_ids[position] == panoptic_ids
    return np.where(listed, segment_classes[position], np.int32(ignore_label))


def read_semantic_labels(record: Mapping[str, Any], ignore_label: int) -> SemanticLabels:
    """Semantic labels of a dataset record.

    Read from ``sem_seg_file_name`` if that file exists, otherwise derived from
    ``pan_seg_file_name`` and ``segments_info``.

    Raises:
        InputError: the record names neither.
        MissingFileError: the label file does not exist, and there is no panoptic annotation.
    """
    semantic_file = record.get("sem_seg_file_name")
    if semantic_file is not None and Path(semantic_file).is_file():
        labels = read_label_map(semantic_file)
        if "sem_seg_values" in record:
            values = LabelValues(*record["sem_seg_values"])
            labels = values.positions(labels, ignore_label, str(semantic_file))
        return SemanticLabels(labels, str(semantic_file))
    panoptic_file = record.get("pan_seg_file_name")
    if panoptic_file is not None and "segments_info" in record:
        ids = read_panoptic_ids(panoptic_file)
        labels = semantic_from_panoptic(ids, record["segments_info"], ignore_label)
        return SemanticLabels(labels, str(panoptic_file))
    if semantic_file is None:
        raise InputError(
            f"the record of {record.get('file_name')} names neither a semantic label file "
            "(sem_seg_file_name) nor a panoptic one (pan_seg_file_name with segments_info)"
        )
    raise MissingFileError(
        f"semantic label file {semantic_file} of image {record.get('file_name')} does not exist, "
        "and the record has no panoptic annotation to derive it from; datasets/README.md says how "
        "to prepare each dataset"
    )


def check_label_range(
    semantic: SemanticLabels, *, num_classes: int, ignore_label: int, dataset_name: str
) -> None:
    """Raise an InputError unless all labels are 0..num_classes-1 or ``ignore_label``.

    It names the file, an invalid value, the number of invalid pixels, and the valid range.
    """
    labels = semantic.labels
    invalid = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_label)
    if invalid.any():
        raise InputError(
            f"label file {semantic.source}: pixel value {int(labels[invalid][0])} (invalid values "
            f"at {int(invalid.sum())} pixels); dataset {dataset_name} allows "
            f"0..{num_classes - 1} and the ignore label {ignore_label}"
        )


def has_semantic_labels(record: Mapping[str, Any]) -> bool:
    """Whether the record names annotation that :func:`read_semantic_labels` can read."""
    return "sem_seg_file_name" in record or (
        "pan_seg_file_name" in record and "segments_info" in record
    )
