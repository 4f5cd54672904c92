"""Confusion matrices of predicted and true classes, and per-class scores computed from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

CountMatrix = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# Boundary maps are 8-bit images, whose values must represent every class and the ignored pixels.
MAX_BOUNDARY_CLASSES = 254
MAX_PAIRS = 200


def confusion_matrix(
    prediction: npt.NDArray[np.int32], truth: npt.NDArray[np.int32], num_classes: int
) -> CountMatrix:
    """Counts [K+1, K+1] of (predicted, true) classes in two maps of equal shape, values 0..K."""
    size = num_classes + 1
    pairs = size * prediction.astype(np.int64).ravel() + truth.ravel()
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


@dataclass(frozen=True)
class ClassScores:
    """Scores per class [K]; NaN for a class without ground truth, which means leave out."""

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
        """Fraction of the labeled pixels that are classified correctly."""
        return float(ratio(self.true_positives.sum(), self.truth_pixels.sum()))


def class_scores(confusion: CountMatrix) -> ClassScores:
    """Scores from a matrix [K+1, K+1] (rows predicted, columns true, last: ignored).

    By the published convention, the IoU of a class that is predicted but does not occur in the
    ground truth is NaN. Predictions on ignored pixels are not counted.
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
    """The most frequent confusions of two classes, in descending order.

    Args:
        confusion: counts [K, K], rows predicted, columns true.

    Returns: rows with ``true``, ``predicted`` (class names), ``count``, and ``share``: the
        percentage of the true class that is predicted as the other.
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

    The published code stores everything in 8 bits, including the index of each pair of classes,
    which therefore wraps around for more than 15 classes. This is reproduced only so that
    BoundaryIoU is comparable with published numbers; do not use it for anything else.
    """
    size = num_classes + 1
    pairs = size * _boundary_map(prediction).astype(np.int64) + _boundary_map(truth)
    counts = np.bincount(pairs.astype(np.uint8).ravel(), minlength=size * size)
    return counts[: size * size].reshape(size, size)


def boundary_iou(boundary_confusion: CountMatrix) -> FloatArray:
    """IoU [K] of each value in two boundary maps; NaN where neither map has the value."""
    counts = boundary_confusion[:-1, :-1]
    union = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    return ratio(counts.diagonal(), union)


def _boundary_map(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """The label map minus its erosion by 2 % of the image diagonal, at least one pixel.

    The map is eroded like a gray image: the result holds label differences, not boundary labels.
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
