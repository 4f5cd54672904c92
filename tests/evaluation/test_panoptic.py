"""Panoptic quality against the published numbers and rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hotcoco.panoptic import pq_compute
from PIL import Image

from maskclippp.errors import InputError
from maskclippp.evaluation import PanopticEvaluator
from tests.evaluation.golden_datasets import assert_metrics, registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "panoptic.json").is_file()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_the_published_ones(case: GoldenCase) -> None:
    with registered(case) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, dataset.panoptic_outputs())
        metrics = evaluator.evaluate()["panoptic_seg"]
    assert list(metrics) == list(dataset.expected["panoptic_seg"])
    assert_metrics(metrics, dataset.expected["panoptic_seg"], dataset.tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_counts_per_category(case: GoldenCase, tmp_path: Path) -> None:
    with registered(case) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth, tmp_path)
        evaluator.process(dataset.inputs, dataset.panoptic_outputs())
        evaluator.evaluate()
    content = json.loads((tmp_path / "panoptic_seg_evaluation.json").read_text())
    counts = {row["id"]: [row["tp"], row["fp"], row["fn"]] for row in content["per_class"]}
    expected = {
        int(identity): [row["tp"], row["fp"], row["fn"]]
        for identity, row in dataset.expected["panoptic_per_dataset_category"].items()
        if row["tp"] + row["fp"] + row["fn"]
    }
    assert counts == expected


@pytest.mark.parametrize("case", CASES, ids=str)
def test_seen_and_unseen_quality_are_means_over_their_classes(
    case: GoldenCase, tmp_path: Path
) -> None:
    with registered(case) as dataset:
        words = dataset.words("some_seen")
        evaluator = PanopticEvaluator(dataset.ground_truth, tmp_path, words=words)
        evaluator.process(dataset.inputs, dataset.panoptic_outputs())
        metrics = evaluator.evaluate()["panoptic_seg"]
        positions = dataset.ground_truth.metadata.stuff_dataset_id_to_contiguous_id
    assert_metrics(metrics, dataset.expected["panoptic_seg"], dataset.tolerance)
    rows = json.loads((tmp_path / "panoptic_seg_evaluation.json").read_text())["per_class"]
    for name, wanted in (("PQ(S)", True), ("PQ(U)", False)):
        values = [row["PQ"] for row in rows if words.seen[positions[row["id"]]] == wanted]
        assert metrics[name] == pytest.approx(np.mean(values))


def test_prediction_file_has_dataset_categories(tmp_path: Path) -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth, tmp_path)
        evaluator.process(dataset.inputs, dataset.panoptic_outputs())
        evaluator.evaluate()
        content = json.loads((tmp_path / "predictions.json").read_text())
        images = len(dataset.inputs)
    categories = {category["id"] for category in content["categories"]}
    used = {s["category_id"] for a in content["annotations"] for s in a["segments_info"]}
    assert used <= categories
    assert len(content["annotations"]) == images


def test_map_without_a_list_is_decoded() -> None:
    with registered(CASES[-1]) as dataset:
        listed = PanopticEvaluator(dataset.ground_truth)
        outputs = dataset.panoptic_outputs()
        listed.process(dataset.inputs, outputs)
        encoded = PanopticEvaluator(dataset.ground_truth)
        for image, output in zip(dataset.inputs, outputs, strict=True):
            ids, segments = output["panoptic_seg"]
            values = torch.full_like(ids, -1)
            for instance, segment in enumerate(segments):
                values[ids == segment["id"]] = segment["category_id"] * 1000 + instance
            encoded.process([image], [{"panoptic_seg": (values, None)}])
        assert encoded.evaluate() == listed.evaluate()


def test_missing_image_is_named() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs[1:], dataset.panoptic_outputs()[1:])
        with pytest.raises(ValueError, match=str(dataset.inputs[0]["image_id"])):
            evaluator.evaluate()


def test_class_that_is_no_thing_is_refused() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        ids, segments = dataset.panoptic_outputs()[0]["panoptic_seg"]
        segments[0].update(category_id=100000, isthing=True)
        with pytest.raises(ValueError, match="100000 is not a contiguous thing"):
            evaluator.process(dataset.inputs[:1], [{"panoptic_seg": (ids, segments)}])


def test_missing_annotation_is_explained_before_inference() -> None:
    with registered(CASES[-1], panoptic_json="absent.json") as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        with pytest.raises(FileNotFoundError, match=r"absent\.json .*PANOPTIC_ON"):
            evaluator.reset()


def without_area(content: dict[str, Any]) -> dict[str, Any]:
    del content["annotations"][1]["segments_info"][0]["area"]
    return content


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: [], "the file must be an object, found \\[\\]"),
        (
            lambda content: {"annotations": []},
            "the file lacks images, categories, found only the keys",
        ),
        (
            lambda content: {**content, "annotations": [None]},
            r"annotations\[0\] must be an object, found null",
        ),
        (without_area, "lacks area"),
    ],
)
def test_broken_annotation_is_named_before_inference(
    damage: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    with registered(CASES[-1]) as dataset:
        whole = json.loads(Path(dataset.ground_truth.metadata.panoptic_json).read_text())
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(damage(whole)))
    with registered(CASES[-1], panoptic_json=str(file)) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match=rf"broken\.json.*{message}"):
            evaluator.reset()


def test_surplus_predictions_count_nowhere_and_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, dataset.panoptic_outputs())
        surplus = {**dataset.inputs[0], "image_id": "other", "file_name": "surplus.jpg"}
        evaluator.process([surplus], dataset.panoptic_outputs()[:1])
        metrics = evaluator.evaluate()["panoptic_seg"]
    assert_metrics(metrics, dataset.expected["panoptic_seg"], dataset.tolerance)
    assert "1 predicted images, the first of them surplus.jpg" in caplog.text


def test_quality_is_the_mean_over_the_annotated_categories() -> None:
    """Also over one that is annotated, but not among the registered classes."""
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        everything = dict(dataset.ground_truth.metadata.stuff_dataset_id_to_contiguous_id)
        things = dict(dataset.ground_truth.metadata.thing_dataset_id_to_contiguous_id)
        outputs = []
        for output in dataset.panoptic_outputs():
            ids, _ = output["panoptic_seg"]
            outputs.append({"panoptic_seg": (torch.zeros_like(ids), [])})
        ids, segments = dataset.panoptic_outputs()[0]["panoptic_seg"]
        found = segments[0]
        outputs[0] = {"panoptic_seg": (torch.where(ids == found["id"], ids, 0), [found])}
        evaluator.process(dataset.inputs, outputs)
        whole = evaluator.evaluate()["panoptic_seg"]
    kept = {
        identity: position
        for identity, position in everything.items()
        if position == found["category_id"]
    }
    changes = {
        "stuff_dataset_id_to_contiguous_id": kept,
        "thing_dataset_id_to_contiguous_id": {k: v for k, v in kept.items() if k in things},
    }
    with registered(CASES[-1], **changes) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        evaluator.process(dataset.inputs, outputs)
        assert evaluator.evaluate()["panoptic_seg"]["PQ"] == whole["PQ"]


def test_missing_output_names_image_and_switch() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        with pytest.raises(ValueError, match=r"has no panoptic_seg, only \[\].*PANOPTIC_ON"):
            evaluator.process(dataset.inputs[:1], [{}])


def test_record_without_annotation_is_refused() -> None:
    with registered(CASES[-1]) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth)
        record = dataset.inputs[0]
        del record["pan_seg_file_name"]
        with pytest.raises(InputError, match="lacks pan_seg_file_name"):
            evaluator.process([record], dataset.panoptic_outputs()[:1])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_equal_those_of_another_implementation(case: GoldenCase, tmp_path: Path) -> None:
    with registered(case) as dataset:
        evaluator = PanopticEvaluator(dataset.ground_truth, tmp_path)
        evaluator.process(dataset.inputs, dataset.panoptic_outputs())
        metrics = evaluator.evaluate()["panoptic_seg"]
        metadata = dataset.ground_truth.metadata
        for record, output in zip(dataset.inputs, dataset.panoptic_outputs(), strict=True):
            ids = output["panoptic_seg"][0].numpy()
            colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
            stem = Path(record["file_name"]).stem
            Image.fromarray(colors.astype(np.uint8)).save(tmp_path / f"{stem}.png")
        results = pq_compute(
            metadata.panoptic_json,
            tmp_path / "predictions.json",
            metadata.panoptic_root,
            tmp_path,
        )
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for name in ("PQ", "SQ", "RQ"):
            expected = 100 * results[group][name.lower()]
            assert metrics[name + suffix] == pytest.approx(expected, abs=1e-10, nan_ok=True)
