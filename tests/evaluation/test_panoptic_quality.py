"""Matching of segments, and panoptic quality from counts."""

import math

import numpy as np
import pytest

from maskclippp.evaluation.panoptic_quality import CategoryCounts, count_image, panoptic_quality


def test_unlisted_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="segment 7 "):
        count_image(np.full((2, 2), 7, np.int32), {}, np.zeros((2, 2), np.int32), [])


def test_segment_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="segment 7 has no pixel"):
        count_image(np.zeros((2, 2), np.int32), {7: 1}, np.zeros((2, 2), np.int32), [])


def test_image_without_truth_ignores_every_prediction() -> None:
    counts = count_image(np.ones((2, 2), np.int32), {1: 3}, np.zeros((2, 2), np.int32), [])
    assert counts == {}


def test_empty_group_is_undefined_and_leaves_the_others() -> None:
    metrics = panoptic_quality({5: CategoryCounts(tp=1, iou_sum=0.8)}, {5: True})
    assert metrics["PQ"] == metrics["PQ_th"] == pytest.approx(80)
    assert math.isnan(metrics["PQ_st"])
