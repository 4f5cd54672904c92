"""Confusion matrices of predicted and true classes, and per-class scores computed from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

CountMatrix = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# As in the published results, there is no Boundary IoU of more classes; label maps fit in 8 bits.
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


def boundary_counts(
    prediction: npt.NDArray[np.int32], truth: npt.NDArray[np.int32], num_classes: int
) -> CountMatrix:
    """Pixels per class of Boundary IoU (Cheng et al., CVPR 2021): [3, K].

    The rows are the intersection and the union of both boundary regions, and the true region. The
    boundary region of a class consists of its pixels that are at most 2 % of the image diagonal,
    but at least one pixel, away from another class or from the outside. Ignored pixels (K in
    ``truth``) are not counted.
    """
    true = _boundary_labels(truth, num_classes)
    predicted = np.where(
        truth < num_classes, _boundary_labels(prediction, num_classes), num_classes
    )
    both = np.where(predicted == true, true, num_classes)
    common, ours, theirs = (
        np.bincount(labels.ravel(), minlength=num_classes + 1)[:num_classes]
        for labels in (both, predicted, true)
    )
    return np.stack([common, ours + theirs - common, theirs])


def boundary_iou(counts: CountMatrix) -> FloatArray:
    """IoU [K] of boundary regions; NaN for a class without ground truth, as in mIoU."""
    intersection, union, true = counts
    return np.where(true > 0, ratio(intersection, union), np.nan)


def _boundary_labels(labels: npt.NDArray[np.int32], none: int) -> npt.NDArray[np.int32]:
    """The labels of pixels in the boundary region of their class, ``none`` elsewhere.

    A pixel is inside its class if the smallest and the largest label around it are equal.
    """
    distance = max(1, round(0.02 * float(np.hypot(*labels.shape))))
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    picture = (labels + 1).astype(np.uint8)  # 0 is the outside of the image
    lowest = cv2.erode(picture, window, borderType=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))
    boundary = labels.copy()
    boundary[lowest == cv2.dilate(picture, window)] = none
    return boundary


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Quotient, NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(numerator, denominator, dtype=np.float64)
