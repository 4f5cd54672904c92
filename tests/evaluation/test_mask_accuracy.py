"""Mask accuracy against the published numbers and rules."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from maskclippp.evaluation import MaskAccuracyEvaluator
from tests.evaluation.golden_datasets import assert_metrics, recorded_seen_masks, registered
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


@pytest.mark.parametrize(
    ("case", "name", "kind", "key"),
    [
        (case, name, kind, key)
        for kind, key in VARIANTS
        for case, name in recorded_seen_masks(CASES, key)
    ],
    ids=str,
)
def test_seen_and_unseen_means(case: GoldenCase, name: str, kind: str, key: str) -> None:
    expected = case.info["expected"][f"{key}_{name}"]
    with registered(case) as dataset:
        evaluator = MaskAccuracyEvaluator(
            dataset.ground_truth, panoptic=kind == "pan", words=dataset.words(name)
        )
        evaluator.process(dataset.inputs, dataset.mask_class_outputs(kind))
        metrics = evaluator.evaluate()["mask_acc"]
    assert_metrics(metrics, expected, dataset.tolerance)
    assert ("mMaskAcc(S)" in metrics) == ("mMaskAcc(S)" in expected)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_uniform_mask_leaves_the_plain_metrics(case: GoldenCase, seen: bool) -> None:
    with registered(case) as dataset:
        words = dataset.uniformly_seen(seen=seen)
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth, words=words)
        outputs = dataset.mask_class_outputs("sem")
        evaluator.process(dataset.inputs, outputs)
        metrics = evaluator.evaluate()["mask_acc"]
        plain = MaskAccuracyEvaluator(dataset.ground_truth)
        plain.process(dataset.inputs, outputs)
    np.testing.assert_equal(metrics, plain.evaluate()["mask_acc"])


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


def test_classes_of_equal_name_have_their_own_rows(tmp_path: Path) -> None:
    with registered(CASES[-1]) as dataset:
        names = dataset.ground_truth.class_names
    with registered(CASES[-1], stuff_classes=["same"] * len(names)) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth, tmp_path / "same")
        evaluator.process(dataset.inputs, dataset.mask_class_outputs("sem"))
        evaluator.evaluate()
    with registered(CASES[-1]) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth, tmp_path / "own")
        evaluator.process(dataset.inputs, dataset.mask_class_outputs("sem"))
        evaluator.evaluate()
    same, own = (
        [row["MaskAcc"] for row in json.loads(file.read_text())["per_class"]]
        for file in (tmp_path / name / "mask_acc_evaluation.json" for name in ("same", "own"))
    )
    assert same == own
    assert len(set(same)) > 1


def test_missing_output_names_image_and_switch() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = MaskAccuracyEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match=r"has no mask_cls, only \['sem_seg'\].*MASK_ACC"):
            evaluator.process(dataset.inputs[:1], [{"sem_seg": torch.zeros(1)}])
