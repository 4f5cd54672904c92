"""The most frequent confusions of a count matrix, and the IoU of boundary regions."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from maskclippp.evaluation.confusion import boundary_counts, boundary_iou, confusion_pairs

NAMES = ["sky", "sea", "sand"]
# rows predicted, columns true
COUNTS = np.array([[10, 4, 0], [2, 6, 5], [8, 0, 5]])


def test_pairs_come_by_count_with_their_share_of_the_true_class() -> None:
    assert confusion_pairs(COUNTS, NAMES) == [
        {"true": "sky", "predicted": "sand", "count": 8, "share": 40.0},
        {"true": "sand", "predicted": "sea", "count": 5, "share": 50.0},
        {"true": "sea", "predicted": "sky", "count": 4, "share": 40.0},
        {"true": "sky", "predicted": "sea", "count": 2, "share": 10.0},
    ]


def test_only_the_first_pairs_are_kept() -> None:
    assert [row["count"] for row in confusion_pairs(COUNTS, NAMES, limit=2)] == [8, 5]


def test_the_matrix_stays_as_it_is() -> None:
    before = COUNTS.copy()
    confusion_pairs(COUNTS, NAMES)
    assert (before == COUNTS).all()


def test_nothing_confused_gives_no_rows() -> None:
    assert confusion_pairs(np.diag([3, 0, 2]), NAMES) == []


def boundary_region(mask: np.ndarray) -> np.ndarray:
    """By the definition (Cheng et al., 2021): what erosions by one pixel each take away."""
    distance = max(1, round(0.02 * math.hypot(*mask.shape)))
    return mask & ~binary_erosion(mask, np.ones((3, 3)), distance)


@pytest.mark.parametrize("num_classes", [3, 254])
def test_boundary_iou_is_that_of_each_class_alone(num_classes: int) -> None:
    generator = np.random.default_rng(num_classes)
    for size in ((40, 70), (101, 60), (5, 3), (20, 25)):
        coarse = generator.integers(0, num_classes + 1, (2, 4, 5))
        blocks = np.kron(coarse, np.ones((size[0] // 4 + 1, size[1] // 5 + 1), np.int64))
        truth, prediction = blocks[:, : size[0], : size[1]].astype(np.int32)
        prediction = prediction.clip(max=num_classes - 1)
        counts = boundary_counts(prediction, truth, num_classes)
        labeled = truth < num_classes
        for label in np.unique(truth[labeled]):
            ours, true = (boundary_region(m == label) & labeled for m in (prediction, truth))
            expected = (ours & true).sum() / (ours | true).sum()
            assert boundary_iou(counts)[label] == expected


def test_a_class_that_is_never_predicted_has_no_boundary_iou() -> None:
    """detectron2's method counts the inside of all classes as class 0."""
    truth = np.zeros((20, 20), np.int32)
    truth[:, 10:] = 1
    found = boundary_iou(boundary_counts(np.ones_like(truth), truth, 3))
    assert found[0] == 0
    assert 0 < found[1] < 1
    assert np.isnan(found[2])


def test_a_class_without_ground_truth_has_no_boundary_iou() -> None:
    intersection, union, true = [0, 2], [5, 4], [0, 3]
    found = boundary_iou(np.array([intersection, union, true]))
    assert math.isnan(found[0])
    assert found[1] == 0.5
