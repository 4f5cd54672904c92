"""Panoptic quality (Kirillov et al., 2019) with COCO's rules for crowd and void."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskclippp.errors import InputError
from maskclippp.files.images import LabelArray

VOID = 0
_MATCH_IOU = 0.5
_IGNORED_SHARE = 0.5


@dataclass
class CategoryCounts:
    """Matches, false positives, missed segments, and IoU sum of one category."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    iou_sum: float = 0.0

    def add(self, other: "CategoryCounts") -> None:
        """Add another image's counts."""
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        self.iou_sum += other.iou_sum

    @property
    def segments(self) -> float:
        """The denominator of PQ and RQ: matches plus half of the errors."""
        return self.tp + self.fp / 2 + self.fn / 2

    @property
    def panoptic_quality(self) -> float:
        return self.iou_sum / self.segments

    @property
    def segmentation_quality(self) -> float:
        return self.iou_sum / self.tp if self.tp else 0.0

    @property
    def recognition_quality(self) -> float:
        return self.tp / self.segments


ImageCounts = dict[int, CategoryCounts]


def count_image(
    predicted_ids: LabelArray,
    predicted_categories: Mapping[int, int],
    truth_ids: LabelArray,
    truth_segments: Sequence[Mapping[str, Any]],
) -> ImageCounts:
    """Match the segments of one image.

    Args:
        predicted_ids: predicted segment ids [H, W], 0 = void.
        predicted_categories: segment id -> category.
        truth_ids: ground-truth segment ids [H, W], 0 = void.
        truth_segments: ``id``, ``category_id``, ``area`` and optionally ``iscrowd``. The area is
            taken from here and not from the map, as in COCO's code.

    Returns: counts by category, for the categories that occur.
    Raises InputError if the predicted map and the list of predicted segments disagree.
    """
    segment_ids = np.array(sorted(predicted_categories), dtype=np.int64)
    ids = np.concatenate([[VOID], segment_ids[segment_ids != VOID]])
    predicted_runs, truth_runs, lengths = _common_runs(predicted_ids, truth_ids)
    columns = np.searchsorted(ids, predicted_runs).clip(max=len(ids) - 1)
    _check_ids(ids, predicted_runs, columns)
    truth_values, rows = np.unique(truth_runs, return_inverse=True)
    overlap = np.zeros((len(truth_values), len(ids)), dtype=np.int64)
    np.add.at(overlap, (rows, columns), lengths)
    row_of = {int(value): row for row, value in enumerate(truth_values)}
    nothing = np.zeros(len(ids), dtype=np.int64)
    predicted_area = overlap.sum(axis=0)
    on_void = overlap[row_of[VOID]] if VOID in row_of else nothing
    categories = np.array([-1, *(predicted_categories[int(i)] for i in ids[1:])])

    counts: ImageCounts = defaultdict(CategoryCounts)
    matched = np.zeros(len(ids), dtype=bool)
    matched[0] = True  # void is not a segment
    on_crowd: dict[int, npt.NDArray[np.int64]] = {}
    for segment in truth_segments:
        category = int(segment["category_id"])
        row = row_of.get(int(segment["id"]))
        intersection = nothing if row is None else overlap[row]
        if segment.get("iscrowd", 0):
            on_crowd[category] = intersection  # the last one counts, as in the published code
            continue
        union = predicted_area + int(segment["area"]) - intersection - on_void
        candidates = (categories == category) & (intersection > 0)
        iou = np.divide(intersection, union, out=np.zeros(len(ids)), where=candidates)
        matches = iou > _MATCH_IOU
        counts[category].tp += int(matches.sum())
        counts[category].iou_sum += float(iou[matches].sum())
        counts[category].fn += not matches.any()
        matched |= matches
    for column in np.flatnonzero(~matched):
        category = int(categories[column])
        ignored = on_void[column] + on_crowd.get(category, nothing)[column]
        if ignored / predicted_area[column] <= _IGNORED_SHARE:
            counts[category].fp += 1
    return dict(counts)


def _common_runs(
    first: LabelArray, second: LabelArray
) -> tuple[LabelArray, LabelArray, npt.NDArray[np.int64]]:
    """The values in both maps, and the length, of every run of pixels where neither map changes.

    A map of hundreds of thousands of pixels has only thousands of runs to sort.
    """
    first, second = first.ravel(), second.ravel()
    changes = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])[: first.size]
    return first[starts], second[starts], np.diff(starts, append=first.size)


def _check_ids(
    ids: npt.NDArray[np.int64], predicted: LabelArray, columns: npt.NDArray[np.int64]
) -> None:
    unlisted = ids[columns] != predicted
    if unlisted.any():
        raise InputError(
            f"segment {int(predicted[unlisted][0])} of the predicted map is not in the list of "
            "predicted segments"
        )
    present = np.bincount(columns.ravel(), minlength=len(ids)) > 0
    absent = ids[1:][~present[1:]]
    if absent.size:
        raise InputError(f"predicted segment {int(absent[0])} has no pixel in the predicted map")


def sum_counts(images: Iterable[ImageCounts]) -> ImageCounts:
    """Counts over several images."""
    total: ImageCounts = defaultdict(CategoryCounts)
    for image in images:
        for category, counts in image.items():
            total[category].add(counts)
    return dict(total)


def panoptic_quality(
    counts: ImageCounts, is_thing: Mapping[int, bool]
) -> "OrderedDict[str, float]":
    """PQ, SQ, RQ in percent: means over all, thing (_th) and stuff (_st) categories.

    Categories without true or wrongly predicted segments are left out; the mean over a group
    without categories is NaN.
    """
    present = {c: n for c, n in counts.items() if n.segments > 0}
    groups = {
        "": list(present.values()),
        "_th": [n for c, n in present.items() if is_thing[c]],
        "_st": [n for c, n in present.items() if not is_thing[c]],
    }
    metrics = OrderedDict()
    for suffix, group in groups.items():
        for name in ("panoptic_quality", "segmentation_quality", "recognition_quality"):
            mean = float(np.mean([getattr(n, name) for n in group])) if group else float("nan")
            metrics[f"{name[0].upper()}Q{suffix}"] = 100 * mean
    return metrics
