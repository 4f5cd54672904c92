"""Mask accuracy against the published numbers and rules."""

import json
import math
from pathlib import Path

import pytest
import torch

from maskclippp.evaluation import MaskAccuracyEvaluator
from tests.evaluation.golden_datasets import ALL_SEEN_MASKS, assert_metrics, registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "mask_cls.json").is_file()]
VARIANTS = [("sem", "mask_acc"), ("pan", "pan_mask_acc")]


@pytest.mark.parametrize(("kind", "key"), VARIANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_the_published_ones(case: GoldenCase, kind: str, key: str) -> None:
    with registered(case) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth, panoptic=kind == "pan")
        evaluator.process(dataset.inputs, dataset.mask_class_outputs(kind))
        metrics = evaluator.evaluate()["mask_acc"]
    assert_metrics(metrics, dataset.expected[key], dataset.tolerance)
    assert all(math.isnan(metrics[name]) for name in metrics.keys() - dataset.expected[key])


@pytest.mark.parametrize("name", ALL_SEEN_MASKS)
@pytest.mark.parametrize(("kind", "key"), VARIANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_seen_and_unseen_means(case: GoldenCase, kind: str, key: str, name: str) -> None:
    expected = case.info["expected"].get(f"{key}_{name}")
    if expected is None:  # not every case records every mask
        name, expected = "some_seen", case.info["expected"][f"{key}_some_seen"]
    with registered(case) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth, panoptic=kind == "pan")
        outputs = dataset.mask_class_outputs(kind)
        for output in outputs:
            output["category_overlapping_mask"] = dataset.seen_mask(name)
        evaluator.process(dataset.inputs, outputs)
        metrics = evaluator.evaluate()["mask_acc"]
    assert_metrics(metrics, expected, dataset.tolerance)
    assert ("mMaskAcc(S)" in metrics) == ("mMaskAcc(S)" in expected)


def test_other_number_of_masks_names_the_image() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match="1 predicted classes for"):
            evaluator.process(dataset.inputs[:1], [{"mask_cls": torch.zeros(1, dtype=torch.int64)}])


def test_class_out_of_range_names_the_image() -> None:
    with registered(CASES[-1]) as dataset:
        output = dataset.mask_class_outputs("sem")[0]
        output["mask_cls"][0] = dataset.ground_truth.num_classes
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match="predicted classes"):
            evaluator.process(dataset.inputs[:1], [output])


def test_files_hold_the_numbers(tmp_path: Path) -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth, tmp_path)
        evaluator.process(dataset.inputs, dataset.mask_class_outputs("sem"))
        metrics = evaluator.evaluate()["mask_acc"]
    content = json.loads((tmp_path / "mask_acc_evaluation.json").read_text())
    assert content["metrics"]["mMaskAcc"] == metrics["mMaskAcc"]
    assert "Every ground-truth mask counts once" in content["convention"]
