"""Masks labeled through the ground truth."""

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
from maskclippp.evaluation.assigned_masks import majority_labels, paint_segments
from tests.evaluation.golden_datasets import (
    GoldenDataset,
    assert_metrics,
    registered,
    small_dataset,
)
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


@pytest.mark.parametrize("task", [SemanticEvaluator, PanopticEvaluator, InstanceEvaluator])
def test_masks_of_another_size_name_the_image(task: type) -> None:
    with registered(CASES[-1]) as dataset:
        names = {SemanticEvaluator: "semantic", PanopticEvaluator: "panoptic"}
        part = {names.get(task, "instance"): task(dataset.ground_truth)}
        evaluator = AssignedMasksEvaluator(dataset.ground_truth, **part)
        output = {"pred_masks": dataset.mask_outputs()[0]["pred_masks"][:, :3, :5]}
        with pytest.raises(ValueError, match=r"sizes differ: prediction for .* is 3 x 5") as error:
            evaluator.process(dataset.inputs[:1], [output])
    assert ".png" in str(error.value)


def test_missing_output_names_image_and_switch() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = AssignedMasksEvaluator(
            dataset.ground_truth, semantic=SemanticEvaluator(dataset.ground_truth)
        )
        with pytest.raises(ValueError, match=r"has no pred_masks, only \[\].*SEGMENTOR_ONLY"):
            evaluator.process(dataset.inputs[:1], [{}])


def test_quarters_of_halves_lose_a_half_matched_and_nothing_by_majority() -> None:
    """Four pure quarters of two true halves: the masks are perfect, but two per segment."""
    truth = np.zeros((8, 8), np.int32)
    truth[:, 4:] = 1
    columns, rows = torch.arange(8) // 4, torch.arange(8)[:, None] // 4
    masks = torch.stack([rows * 2 + columns == quarter for quarter in range(4)])
    record = {"file_name": "a.png", "sem_seg": torch.from_numpy(truth), "ignore_label": 255}
    record |= {"height": 8, "width": 8}
    with small_dataset([record]) as ground_truth:
        evaluator = AssignedMasksEvaluator(
            ground_truth,
            semantic=SemanticEvaluator(ground_truth),
            majority=SemanticEvaluator(ground_truth),
        )
        evaluator.reset()
        evaluator.process([record], [{"pred_masks": masks}])
        results = evaluator.evaluate()
    assert results is not None
    assert results["sem_seg_majority"]["mIoU"] == 100
    # Of class 1 one quarter remains; of class 0 all, and the lost quarter of class 1.
    assert results["sem_seg"]["mIoU"] == pytest.approx(100 * (32 / 48 + 16 / 32) / 2)


def test_the_majority_ignores_unlabeled_pixels_and_small_masks_cover_large_ones() -> None:
    truth = torch.tensor([[2, 2, 2, 1, 0]])  # 2: ignored
    regions = torch.tensor([[0, 1, 1, 1, 0]])
    assert majority_labels(regions, truth, 2).tolist() == [[0, 1, 1, 1, 0]]
    record = {"file_name": "a.png", "sem_seg": torch.tensor([[0, 0, 1, 0]]), "ignore_label": 255}
    record |= {"height": 1, "width": 4}
    with small_dataset([record]) as ground_truth:
        evaluator = AssignedMasksEvaluator(ground_truth, majority=SemanticEvaluator(ground_truth))
        small_first = torch.tensor([[[0, 0, 1, 0]], [[1, 1, 1, 1]]]).bool()
        assert evaluator._majority_map(small_first, record).tolist() == [[0, 0, 1, 0]]
