"""COCO average precision against the published numbers and rules."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import BitMasks, Instances

from maskclippp.evaluation import InstanceEvaluator
from maskclippp.files.images import read_panoptic_ids
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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_an_instance_json_the_panoptic_things_are_the_truth(case: GoldenCase) -> None:
    with registered(case, json_file=None) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        outputs = dataset.instance_outputs()
        evaluator.reset()
        evaluator.process(dataset.inputs, [_true_instances(r) for r in dataset.inputs])
        perfect = evaluator.evaluate()["segm"]
        evaluator.reset()
        evaluator.process(dataset.inputs, outputs)
        found = evaluator.evaluate()["segm"]
    assert perfect["AP"] == pytest.approx(100)
    assert 0 < found["AP"] < 100


def _true_instances(record: dict[str, Any]) -> dict[str, Any]:
    """The things of a record as detections."""
    ids = torch.from_numpy(read_panoptic_ids(record["pan_seg_file_name"]))
    things = [s for s in record["segments_info"] if s["isthing"] and not s.get("iscrowd")]
    instances = Instances(tuple(ids.shape))
    thing_ids = torch.tensor([s["id"] for s in things], dtype=ids.dtype)
    instances.pred_masks = ids == thing_ids[:, None, None]
    instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
    instances.scores = torch.ones(len(things))
    instances.pred_classes = torch.tensor([s["category_id"] for s in things], dtype=torch.int64)
    return {"instances": instances}


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
        with pytest.raises(ValueError, match="class 10000 is not a thing"):
            evaluator.process(dataset.inputs[:1], [output])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"json_file": "absent.json"}, r"absent\.json .*INSTANCE_ON"),
        (
            {"json_file": None, "panoptic_json": None},
            r"no json_file in its metadata.*INSTANCE_ON",
        ),
    ],
)
def test_missing_annotation_is_explained_before_inference(
    changes: dict[str, Any], message: str
) -> None:
    with registered(CASES[-1], **changes) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            evaluator.reset()


GHOST = {"id": 987, "name": "ghost"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: None, r"the file must be an object, found null"),
        (
            lambda content: {**content, "annotations": None},
            "annotations must be a list, found null",
        ),
        (lambda content: {**content, "images": [{"id": 1}]}, r"images\[0\] lacks height, width"),
        (
            lambda content: {**content, "categories": [*content["categories"], GHOST]},
            "categories, data",
        ),
        (
            lambda content: {
                **content,
                "categories": content["categories"][:-1],
                "annotations": [],
            },
            r"has \d+ categories, dataset \S+ \d+ things$",
        ),
    ],
)
def test_broken_annotation_is_named_before_inference(
    damage: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    with registered(CASES[-1]) as dataset:
        whole = json.loads(Path(dataset.ground_truth.metadata.json_file).read_text())
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(damage(whole)))
    with registered(CASES[-1], json_file=str(file)) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match=rf"broken\.json.*{message}"):
            evaluator.reset()


def test_image_that_the_annotation_lacks_is_named() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        image = {**dataset.inputs[0], "image_id": 987654}
        with pytest.raises(ValueError, match=r"image_id 987654, which is not an image of .*\.json"):
            evaluator.process([image], dataset.instance_outputs()[:1])


def test_masks_of_another_size_name_the_image() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        output = dataset.instance_outputs()[0]
        output["instances"].pred_masks = output["instances"].pred_masks[:, :3, :5]
        with pytest.raises(ValueError, match=r"sizes differ: prediction for .* is 3 x 5"):
            evaluator.process(dataset.inputs[:1], [output])


def test_missing_output_names_image_and_switch() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = InstanceEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match=r"has no instances, only .*INSTANCE_ON"):
            evaluator.process(dataset.inputs[:1], [{"sem_seg_labels": torch.zeros(1)}])
