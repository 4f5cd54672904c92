"""The most frequent confusions of a count matrix."""

import numpy as np

from maskclippp.evaluation.confusion import confusion_pairs

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
