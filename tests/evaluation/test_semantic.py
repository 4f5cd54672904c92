"""Semantic evaluation against the published numbers and rules."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from maskclippp.evaluation import GroundTruth, SemanticEvaluator
from tests.evaluation.golden_datasets import ALL_SEEN_MASKS, assert_metrics, registered
from tests.golden_cases import GoldenCase, cases

CASES = cases("eval_")
PANOPTIC_CASES = [case for case in CASES if (case.path / "pred" / "panoptic.json").is_file()]


@contextmanager
def small_dataset(
    records: list[dict[str, Any]], class_names: Sequence[str] = ("a", "b", "c", "d", "e")
) -> Iterator[GroundTruth]:
    DatasetCatalog.register("small_semantic", lambda: records)
    MetadataCatalog.get("small_semantic").set(stuff_classes=list(class_names), ignore_label=255)
    try:
        yield GroundTruth("small_semantic")
    finally:
        DatasetCatalog.remove("small_semantic")
        MetadataCatalog.remove("small_semantic")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_the_published_ones(case: GoldenCase) -> None:
    with registered(case) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, dataset.semantic_outputs())
        metrics = evaluator.evaluate()["sem_seg"]
    expected = dataset.expected.get("sem_seg", dataset.expected)
    assert_metrics(metrics, expected, dataset.tolerance)
    undefined = {name for name in metrics if name not in expected}
    assert all(math.isnan(metrics[name]) for name in undefined)
    order = [name for name in metrics if name in expected]
    assert order == list(expected)


@pytest.mark.parametrize("case", PANOPTIC_CASES, ids=str)
def test_confusion_matrix_counts_every_pixel(case: GoldenCase) -> None:
    with registered(case) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, dataset.semantic_outputs())
    counts = torch.from_numpy(evaluator.confusion)
    key = "sem_seg_confusion_rows_pred_cols_gt_last_is_ignore"
    if key in dataset.expected:
        assert counts.tolist() == dataset.expected[key]
    else:
        entries = dataset.expected["sem_seg_confusion_nonzero_pred_gt_count"]
        assert [[int(p), int(t), int(counts[p, t])] for p, t in counts.nonzero()] == entries


@pytest.mark.parametrize("name", ALL_SEEN_MASKS)
@pytest.mark.parametrize("case", PANOPTIC_CASES, ids=str)
def test_seen_and_unseen_means(case: GoldenCase, name: str) -> None:
    expected = case.info["expected"].get(f"sem_seg_{name}")
    if expected is None:  # not every case records every mask; the plain numbers must stay
        name, expected = "some_seen", case.info["expected"]["sem_seg_some_seen"]
    with registered(case) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        outputs = dataset.semantic_outputs()
        for output in outputs:
            output["category_overlapping_mask"] = dataset.seen_mask(name)
        evaluator.process(dataset.inputs, outputs)
        metrics = evaluator.evaluate()["sem_seg"]
    assert_metrics(metrics, expected, dataset.tolerance)
    assert ("mIoU(S)" in metrics) == ("mIoU(S)" in expected)


def test_reset_forgets_which_classes_were_seen() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        outputs = dataset.semantic_outputs()
        seen = dataset.seen_mask("some_seen")
        evaluator.process(
            dataset.inputs, [{**o, "category_overlapping_mask": seen} for o in outputs]
        )
        assert "mIoU(S)" in evaluator.evaluate()["sem_seg"]
        evaluator.reset()
        evaluator.process(dataset.inputs, outputs)
        assert "mIoU(S)" not in evaluator.evaluate()["sem_seg"]


def test_scores_and_labels_give_the_same_numbers() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        labelled = SemanticEvaluator(dataset.ground_truth)
        outputs = dataset.semantic_outputs()
        labelled.process(dataset.inputs, outputs)
        scored = SemanticEvaluator(dataset.ground_truth)
        classes = dataset.ground_truth.num_classes
        for image, output in zip(dataset.inputs, outputs, strict=True):
            one_hot = torch.nn.functional.one_hot(output["sem_seg_labels"].long(), classes)
            scored.process([image], [{"sem_seg": one_hot.permute(2, 0, 1).float()}])
        assert (scored.confusion == labelled.confusion).all()


@pytest.mark.parametrize("case", PANOPTIC_CASES, ids=str)
def test_files_hold_the_numbers_and_the_convention(case: GoldenCase, tmp_path: Path) -> None:
    with registered(case) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth, tmp_path)
        evaluator.process(dataset.inputs, dataset.semantic_outputs())
        metrics = evaluator.evaluate()["sem_seg"]
    content = json.loads((tmp_path / "sem_seg_evaluation.json").read_text())
    assert content["metrics"]["mIoU"] == metrics["mIoU"]
    assert "occur in the ground truth" in content["convention"]
    with (tmp_path / "sem_seg_evaluation.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(rows["mIoU"]["value"]) == metrics["mIoU"]
    assert rows["mIoU"]["convention"] == content["convention"]
    predictions = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert len(predictions) == dataset.expected["sem_seg_predictions_json_entries"]
    first = [p["category_id"] for p in predictions if p["file_name"] == predictions[0]["file_name"]]
    key = "sem_seg_predictions_json_category_ids_first_image"
    assert sorted(first) == dataset.expected[key]


@pytest.mark.parametrize("value", [5, 254])
def test_label_out_of_range_names_file_value_and_range(value: int, tmp_path: Path) -> None:
    label_file = tmp_path / "labels.png"
    Image.fromarray(np.array([[0, 4, value, 255]], dtype=np.uint8)).save(label_file)
    with small_dataset([{"file_name": "a.jpg", "sem_seg_file_name": str(label_file)}]) as truth:
        evaluator = SemanticEvaluator(truth)
        output = {"sem_seg_labels": torch.zeros(1, 4, dtype=torch.int64)}
        with pytest.raises(ValueError, match=r"allows 0\.\.4 and the ignore label 255") as error:
            evaluator.process([{"file_name": "a.jpg"}], [output])
    assert str(label_file) in str(error.value)
    assert f"value {value} " in str(error.value)


def test_missing_label_file_is_derived_from_the_panoptic_map() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        outputs = dataset.semantic_outputs()
        from_files = SemanticEvaluator(dataset.ground_truth)
        from_files.process(dataset.inputs, outputs)
        records = [{**r, "sem_seg_file_name": "absent.png"} for r in dataset.inputs]
        with small_dataset(records, dataset.ground_truth.class_names) as truth:
            derived = SemanticEvaluator(truth)
            derived.process(dataset.inputs, outputs)
        assert (derived.confusion == from_files.confusion).all()


def test_prediction_of_another_size_is_refused() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        output = {"sem_seg_labels": torch.zeros(3, 5, dtype=torch.int64)}
        with pytest.raises(ValueError, match="3 x 5"):
            evaluator.process(dataset.inputs[:1], [output])
