"""Pixel counts of predicted against true classes, and the per-class scores that follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

CountMatrix = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# The boundary maps are 8-bit pictures, whose values must hold every class and the ignored pixels.
MAX_BOUNDARY_CLASSES = 254
MAX_PAIRS = 200


def confusion_matrix(
    prediction: npt.NDArray[np.int32], truth: npt.NDArray[np.int32], num_classes: int
) -> CountMatrix:
    """Counts [K+1, K+1] of (predicted, true) class over two maps of equal shape, values 0..K."""
    size = num_classes + 1
    pairs = size * prediction.astype(np.int64).ravel() + truth.ravel()
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


@dataclass(frozen=True)
class ClassScores:
    """Scores per class [K]: NaN for a class without ground truth, which no mean includes."""

    truth_pixels: CountMatrix
    true_positives: CountMatrix
    iou: FloatArray
    accuracy: FloatArray

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by each class's share of the ground-truth pixels."""
        share = ratio(self.truth_pixels, self.truth_pixels.sum())
        return float(np.nansum(self.iou * share)) if self.truth_pixels.any() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labeled pixels that are right."""
        return float(ratio(self.true_positives.sum(), self.truth_pixels.sum()))


def class_scores(confusion: CountMatrix) -> ClassScores:
    """Scores from a matrix [K+1, K+1] (rows predicted, columns true, last: ignored).

    The IoU of a class that was merely predicted is NaN: the published convention. Predictions on
    ignored pixels count nowhere.
    """
    counts = confusion[:-1, :-1]
    true_positives = counts.diagonal()
    truth_pixels = counts.sum(axis=0)
    union = truth_pixels + counts.sum(axis=1) - true_positives
    iou = np.where(truth_pixels > 0, ratio(true_positives, union), np.nan)
    return ClassScores(truth_pixels, true_positives, iou, ratio(true_positives, truth_pixels))


def confusion_pairs(
    confusion: CountMatrix, class_names: Sequence[str], limit: int = MAX_PAIRS
) -> list[dict[str, Any]]:
    """The pairs of different classes with the highest counts, most frequent first.

    Args:
        confusion: counts [K, K], rows predicted, columns true.

    Returns: rows with ``true``, ``predicted`` (class names), ``count`` and ``share``: percent of
        all that truly is the one class and is called the other.
    """
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    totals = confusion.sum(axis=0)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    rows = []
    for predicted, true in zip(*np.unravel_index(order, errors.shape), strict=True):
        count = int(errors[predicted, true])
        if not count:
            break
        rows.append(
            {
                "true": class_names[true],
                "predicted": class_names[predicted],
                "count": count,
                "share": 100 * count / int(totals[true]),
            }
        )
    return rows


def boundary_confusion_matrix(
    prediction: npt.NDArray[np.int32], truth: npt.NDArray[np.int32], num_classes: int
) -> CountMatrix:
    """Counts [K+1, K+1] over the boundary maps of two label maps, as published.

    The published computation works on 8-bit pictures throughout, pair numbers included, so that for
    more than 15 classes these wrap around. That is reproduced, because numbers called BoundaryIoU
    are compared with published ones; for another purpose do not use them.
    """
    size = num_classes + 1
    pairs = size * _boundary_map(prediction).astype(np.int64) + _boundary_map(truth)
    counts = np.bincount(pairs.astype(np.uint8).ravel(), minlength=size * size)
    return counts[: size * size].reshape(size, size)


def boundary_iou(boundary_confusion: CountMatrix) -> FloatArray:
    """IoU [K] of the values of two boundary maps, NaN where neither map has the value."""
    counts = boundary_confusion[:-1, :-1]
    union = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    return ratio(counts.diagonal(), union)


def _boundary_map(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """The label map minus its erosion by 2 % of the image diagonal, at least one pixel.

    The map is treated as one picture: the result holds label differences, not boundary labels.
    """
    distance = max(1, round(0.02 * float(np.hypot(*labels.shape))))
    side = 2 * distance + 1
    picture = labels.astype(np.uint8)
    eroded = cv2.erode(
        picture,
        np.ones((side, side), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, 0),
    )
    return picture - np.asarray(eroded, dtype=np.uint8)


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Quotient, NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(numerator, denominator, dtype=np.float64)
