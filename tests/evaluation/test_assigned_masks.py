"""Masks labelled through the ground truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from maskclippp.evaluation import (
    AssignedMasksEvaluator,
    InstanceEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from maskclippp.evaluation.assigned_masks import paint_segments
from tests.evaluation.golden_datasets import GoldenDataset, assert_metrics, registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "masks.json").is_file()]


class FirstSegmentLost(PanopticEvaluator):
    """The published defect: the first assigned segment has id 0, which is void."""

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            ids, segments = output["panoptic_seg"]
            kept = [segment for segment in segments if segment["id"] != 1]
            super().process([image], [{"panoptic_seg": (torch.where(ids == 1, 0, ids), kept)}])


def evaluate(dataset: GoldenDataset, **evaluators: Any) -> dict[str, Any]:
    evaluator = AssignedMasksEvaluator(dataset.ground_truth, **evaluators)
    evaluator.reset()
    evaluator.process(dataset.inputs, dataset.mask_outputs())
    results = evaluator.evaluate()
    assert results is not None
    return results


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_the_published_ones(case: GoldenCase) -> None:
    with registered(case) as dataset:
        results = evaluate(
            dataset,
            semantic=SemanticEvaluator(dataset.ground_truth),
            panoptic=FirstSegmentLost(dataset.ground_truth),
            instance=InstanceEvaluator(dataset.ground_truth),
        )
    assert list(results) == list(dataset.expected["gt_assign"])
    for task, expected in dataset.expected["gt_assign"].items():
        assert_metrics(results[task], expected, dataset.tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_segment_is_lost(case: GoldenCase) -> None:
    with registered(case) as dataset:
        lost = evaluate(dataset, panoptic=FirstSegmentLost(dataset.ground_truth))
        kept = evaluate(dataset, panoptic=PanopticEvaluator(dataset.ground_truth))
    assert kept["panoptic_seg"]["RQ"] > lost["panoptic_seg"]["RQ"]


def test_covered_segment_leaves_the_list() -> None:
    masks = torch.tensor([[[True, False]], [[True, True]]])
    segments = [{"category_id": 4, "isthing": True}, {"category_id": 5, "isthing": False}]
    ids, listed = paint_segments(masks, segments)["panoptic_seg"]
    assert np.array_equal(ids, [[2, 2]])
    assert listed == [{"id": 2, "category_id": 5, "isthing": False}]
