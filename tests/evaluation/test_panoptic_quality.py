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


def counted(predicted: list[int], true: list[int], *segments: dict[str, int]) -> dict[str, int]:
    """tp, fp and fn of category 1 for rows of pixels; the predicted segment 1 has category 1."""
    areas = [{**segment, "area": true.count(segment["id"])} for segment in segments]
    maps = (np.array([row], np.int32) for row in (predicted, true))
    predicted_ids, true_ids = maps
    counts = count_image(predicted_ids, {1: 1}, true_ids, areas)
    found = counts.get(1, CategoryCounts())
    return {"tp": found.tp, "fp": found.fp, "fn": found.fn}


def test_a_match_has_an_iou_above_one_half() -> None:
    segment = {"id": 5, "category_id": 1}
    assert counted([1, 1, 0, 0], [5, 5, 5, 5], segment) == {"tp": 0, "fp": 1, "fn": 1}
    assert counted([1, 1, 1, 0], [5, 5, 5, 5], segment) == {"tp": 1, "fp": 0, "fn": 0}


def test_a_prediction_just_half_on_void_is_not_ignored() -> None:
    segment = {"id": 5, "category_id": 2}
    assert counted([1, 1, 1, 1], [0, 0, 5, 5], segment)["fp"] == 1
    assert counted([1, 1, 1, 1], [0, 0, 0, 5], segment)["fp"] == 0


def test_only_the_last_crowd_of_a_category_is_remembered() -> None:
    """As in the published code."""
    crowds = [{"id": identity, "category_id": 1, "iscrowd": 1} for identity in (5, 6)]
    assert counted([1, 1, 1, 0], [5, 5, 6, 6], *crowds)["fp"] == 1
    assert counted([0, 1, 1, 1], [5, 5, 6, 6], *crowds)["fp"] == 0
    assert counted([1, 1, 1, 0], [5, 5, 6, 6], *reversed(crowds))["fp"] == 0


def test_void_pixels_are_no_part_of_the_union() -> None:
    """The prediction covers the segment exactly, and as many pixels of void."""
    segment = {"id": 5, "category_id": 1}
    assert counted([1, 1, 1, 1], [5, 5, 0, 0], segment) == {"tp": 1, "fp": 0, "fn": 0}


def test_predicted_segments_may_be_listed_in_any_order() -> None:
    ids = np.array([[9, 9, 3, 3, 7]], np.int32)
    truth = [{"id": i, "category_id": i, "area": int((ids == i).sum())} for i in (3, 7, 9)]
    for listed in ({9: 9, 3: 3, 7: 7}, {7: 7, 9: 9, 3: 3}):
        counts = count_image(ids, listed, ids, truth)
        assert {category: n.tp for category, n in counts.items()} == {3: 1, 7: 1, 9: 1}


def test_errors_count_half() -> None:
    """PQ = SQ x RQ: the sum of IoU over matches plus half of the other segments."""
    metrics = panoptic_quality({3: CategoryCounts(tp=2, fp=1, fn=3, iou_sum=1.5)}, {3: True})
    assert metrics["PQ"] == pytest.approx(100 * 1.5 / 4)
    assert metrics["SQ"] == pytest.approx(75)
    assert metrics["RQ"] == pytest.approx(50)
    assert metrics["PQ_th"] == metrics["PQ"]
    assert math.isnan(metrics["PQ_st"])
