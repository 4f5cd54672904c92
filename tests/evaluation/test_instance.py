"""COCO average precision against the published numbers and rules."""

import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.structures import Instances

from maskclippp.evaluation import InstanceEvaluator
from tests.evaluation.golden_datasets import assert_metrics, registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "instances.json").is_file()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_the_published_ones(case: GoldenCase) -> None:
    with registered(case) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, dataset.instance_outputs())
        results = evaluator.evaluate()
    for task, expected in dataset.expected["instance_seg"].items():
        assert_metrics(results[task], expected, dataset.tolerance)
        assert all(math.isnan(results[task][name]) for name in results[task].keys() - expected)


def test_detection_file_has_dataset_categories(tmp_path: Path) -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth, tmp_path, iou_types=("segm",))
        evaluator.process(dataset.inputs, dataset.instance_outputs())
        results = evaluator.evaluate()
        things = set(dataset.ground_truth.metadata.thing_dataset_id_to_contiguous_id)
    detections = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {d["category_id"] for d in detections} <= things
    assert list(results) == ["segm"]
    content = json.loads((tmp_path / "segm_evaluation.json").read_text())
    assert content["metrics"]["AP"] == results["segm"]["AP"]


def test_no_detection_at_all_is_undefined() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth, iou_types=("segm",))
        for image in dataset.inputs:
            instances = Instances((4, 4))
            instances.scores = torch.zeros(0)
            instances.pred_classes = torch.zeros(0, dtype=torch.int64)
            instances.pred_masks = torch.zeros(0, 4, 4, dtype=torch.bool)
            evaluator.process([image], [{"instances": instances}])
        metrics = evaluator.evaluate()["segm"]
    assert metrics
    assert all(math.isnan(value) for value in metrics.values())


def test_no_image_gives_no_result() -> None:
    with registered(CASES[-1]) as dataset:
        assert InstanceEvaluator(dataset.ground_truth).evaluate() == {}


def test_class_that_is_no_thing_is_refused() -> None:
    with registered(CASES[-1]) as dataset:
        output = dataset.instance_outputs()[0]
        output["instances"].pred_classes[:] = 10000
        evaluator = InstanceEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match="class 10000 is no thing"):
            evaluator.process(dataset.inputs[:1], [output])


@pytest.mark.parametrize(
    ("json_file", "message"),
    [
        ("absent.json", r"absent\.json .*INSTANCE_ON"),
        (None, r"no instance annotation.*INSTANCE_ON"),
    ],
)
def test_missing_annotation_is_explained(json_file: str | None, message: str) -> None:
    with registered(CASES[-1], json_file=json_file) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, dataset.instance_outputs())
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            evaluator.evaluate()
