"""Semantic evaluation against the published numbers and rules."""

import csv
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskclippp.evaluation import SemanticEvaluator
from maskclippp.words import RequestedWords
from maskclippp.words.vocabulary import Vocabulary
from tests.evaluation.golden_datasets import (
    assert_metrics,
    recorded_seen_masks,
    registered,
    small_dataset,
)
from tests.golden_cases import GoldenCase, cases

CASES = cases("eval_")
PANOPTIC_CASES = [case for case in CASES if (case.path / "pred" / "panoptic.json").is_file()]


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


@pytest.mark.parametrize(("case", "name"), recorded_seen_masks(PANOPTIC_CASES, "sem_seg"), ids=str)
def test_seen_and_unseen_means(case: GoldenCase, name: str) -> None:
    expected = case.info["expected"][f"sem_seg_{name}"]
    with registered(case) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth, words=dataset.words(name))
        evaluator.process(dataset.inputs, dataset.semantic_outputs())
        metrics = evaluator.evaluate()["sem_seg"]
    assert_metrics(metrics, expected, dataset.tolerance)
    assert ("mIoU(S)" in metrics) == ("mIoU(S)" in expected)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("case", PANOPTIC_CASES, ids=str)
def test_uniform_mask_leaves_the_plain_metrics(case: GoldenCase, seen: bool) -> None:
    with registered(case) as dataset:
        words = dataset.uniformly_seen(seen=seen)
        evaluator = SemanticEvaluator(dataset.ground_truth, words=words)
        outputs = dataset.semantic_outputs()
        evaluator.process(dataset.inputs, outputs)
        metrics = evaluator.evaluate()["sem_seg"]
        plain = SemanticEvaluator(dataset.ground_truth)
        plain.process(dataset.inputs, outputs)
    np.testing.assert_equal(metrics, plain.evaluate()["sem_seg"])


def test_reset_forgets_the_images_but_not_which_classes_are_seen() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth, words=dataset.words("some_seen"))
        outputs = dataset.semantic_outputs()
        evaluator.process(dataset.inputs, outputs)
        first = evaluator.evaluate()["sem_seg"]
        assert "mIoU(S)" in first
        evaluator.reset()
        assert not evaluator.confusion.any()
        evaluator.process(dataset.inputs, outputs)
        np.testing.assert_equal(evaluator.evaluate()["sem_seg"], first)


def test_scores_and_labels_give_the_same_numbers() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        labeled = SemanticEvaluator(dataset.ground_truth)
        outputs = dataset.semantic_outputs()
        labeled.process(dataset.inputs, outputs)
        scored = SemanticEvaluator(dataset.ground_truth)
        classes = dataset.ground_truth.num_classes
        for image, output in zip(dataset.inputs, outputs, strict=True):
            one_hot = torch.nn.functional.one_hot(output["sem_seg_labels"].long(), classes)
            scored.process([image], [{"sem_seg": one_hot.permute(2, 0, 1).float()}])
        assert (scored.confusion == labeled.confusion).all()


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


def test_prediction_of_another_size_is_refused() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        output = {"sem_seg_labels": torch.zeros(3, 5, dtype=torch.int64)}
        with pytest.raises(ValueError, match="3 x 5"):
            evaluator.process(dataset.inputs[:1], [output])


@pytest.mark.parametrize("label", [-1, 0])
def test_labels_that_are_no_class_are_refused(label: int) -> None:
    """The number of classes stands for ignored pixels, of the annotation only."""
    with registered(PANOPTIC_CASES[-1]) as dataset:
        truth = dataset.ground_truth
        wrong = label if label < 0 else truth.num_classes
        output = {"sem_seg_labels": torch.full((3, 5), wrong)}
        with pytest.raises(ValueError, match=rf"labels {wrong}\.\.{wrong}, expected 0\.\."):
            SemanticEvaluator(truth).process(dataset.inputs[:1], [output])


def test_errors_of_derived_labels_name_the_panoptic_map() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        record = {**dataset.inputs[0], "sem_seg_file_name": "absent.png"}
        panoptic_file = record["pan_seg_file_name"]
        with small_dataset([record], dataset.ground_truth.class_names) as truth:
            output = {"sem_seg_labels": torch.zeros(3, 5, dtype=torch.int64)}
            with pytest.raises(ValueError, match="sizes differ") as error:
                SemanticEvaluator(truth).process([record], [output])
            assert panoptic_file in str(error.value)
        with small_dataset([record], ["only class"]) as truth:
            with pytest.raises(ValueError, match=r"allows 0\.\.0 ") as error:
                SemanticEvaluator(truth).process([record], [output])
            assert f"label file {panoptic_file}" in str(error.value)


def labels_of_many_classes(folder: Path, classes: int) -> tuple[dict[str, Any], torch.Tensor]:
    """A record whose labels are all classes in turn, and these labels [400, 400]."""
    labels = np.arange(400 * 400).reshape(400, 400) % classes
    Image.fromarray(labels.astype(np.uint8)).save(folder / "labels.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(folder / "labels.png")}
    return record, torch.from_numpy(labels)


def test_memory_does_not_grow_with_the_number_of_predicted_classes(tmp_path: Path) -> None:
    record, labels = labels_of_many_classes(tmp_path, 200)
    with small_dataset([record], [str(index) for index in range(200)]) as truth:
        evaluator = SemanticEvaluator(truth, tmp_path)
        tracemalloc.start()
        evaluator._encode(labels.numpy().astype(np.int32), "a.jpg")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 * labels.numel()  # all masks at once would take 200 bytes per pixel


def test_classes_of_equal_name_have_their_own_rows(tmp_path: Path) -> None:
    record, labels = labels_of_many_classes(tmp_path, 2)
    with small_dataset([record], ["same", "same"]) as truth:
        evaluator = SemanticEvaluator(truth, tmp_path)
        evaluator.process([record], [{"sem_seg_labels": labels.clone().fill_(1)}])
        evaluator.evaluate()
    rows = json.loads((tmp_path / "sem_seg_evaluation.json").read_text())["per_class"]
    assert [(row["IoU"], row["ACC"]) for row in rows] == [(0, 0), (50, 100)]


def test_missing_output_names_image_and_switch() -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match=r"has no sem_seg_labels, only \[\].*SEMANTIC_ON"):
            evaluator.process(dataset.inputs[:1], [{}])


def test_result_file_identifies_the_words(tmp_path: Path) -> None:
    with registered(PANOPTIC_CASES[-1]) as dataset:
        names = dataset.ground_truth.class_names
        test, train = Vocabulary.from_class_names(names), Vocabulary.from_class_names(names[:2])
        words = RequestedWords(test, train_vocabulary=train)
        evaluator = SemanticEvaluator(dataset.ground_truth, tmp_path, words=words)
        evaluator.process(dataset.inputs, dataset.semantic_outputs())
        evaluator.evaluate()
    content = json.loads((tmp_path / "sem_seg_evaluation.json").read_text())
    assert content["test_vocabulary"] == test.provenance()
    assert content["train_vocabulary"] == train.provenance()
    assert [row["seen"] for row in content["per_class"]] == [True] * 2 + [False] * (len(names) - 2)


def test_results_name_the_words_that_were_asked_for(tmp_path: Path) -> None:
    record = {"file_name": "a.png", "sem_seg": torch.tensor([[0, 1]]), "ignore_label": 255}
    record |= {"height": 1, "width": 2}
    words = RequestedWords(Vocabulary.from_class_names(["human, person", "hound"]))
    with small_dataset([record], ("person", "dog")) as truth:
        evaluator = SemanticEvaluator(truth, tmp_path, words=words)
        evaluator.process([record], [{"sem_seg_labels": torch.tensor([[0, 0]])}])
        metrics = evaluator.evaluate()["sem_seg"]
        registered_words = RequestedWords(truth.vocabulary)
        same = SemanticEvaluator(truth, words=registered_words)
        same.process([record], [{"sem_seg_labels": torch.tensor([[0, 0]])}])
        assert "IoU-person" in same.evaluate()["sem_seg"]
    assert metrics["IoU-human, person"] == 50
    assert metrics["ACC-hound"] == 0
    assert not any("dog" in name for name in metrics)
    with (tmp_path / "sem_seg_per_class.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["human, person", "hound"]
    with (tmp_path / "sem_seg_confusion_pairs.csv").open() as file:
        assert [(row["true"], row["predicted"]) for row in csv.DictReader(file)] == [
            ("hound", "human, person")
        ]


def test_boundaries_are_summed_over_the_images(tmp_path: Path) -> None:
    """The pixels of all images count together: one is right, one lacks the class."""
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "labels.png")}
    right = torch.from_numpy(labels).long()
    with small_dataset([record], ["back", "front"]) as truth:
        evaluator = SemanticEvaluator(truth)
        for prediction in (right, torch.zeros_like(right)):
            evaluator.process([record], [{"sem_seg_labels": prediction}])
        metrics = evaluator.evaluate()["sem_seg"]
    assert metrics["BoundaryIoU-front"] == 50
