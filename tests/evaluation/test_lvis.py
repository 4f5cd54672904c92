"""Average precision by LVIS's rules, against numbers of the lvis package and by hand."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from pycocotools import mask as mask_codec

from maskclippp.evaluation import GroundTruth, LVISEvaluator
from maskclippp.evaluation.average_precision import average_precision

# What LVISEval of lvis 0.5.3 says of random_scenes(), in percent.
EXPECTED = {
    "bbox": {
        "AP": 9.34013912,
        "AP50": 28.06538053,
        "AP75": 4.23234996,
        "APs": 3.0233817,
        "APm": 11.67535241,
        "APl": 42.52475248,
        "APr": 10.1894403,
        "APc": 10.34483232,
        "APf": 7.48614476,
    },
    "segm": {
        "AP": 9.42969172,
        "AP50": 29.7546267,
        "AP75": 3.58497043,
        "APs": 2.89045174,
        "APm": 11.83157117,
        "APl": 42.52475248,
        "APr": 10.01041325,
        "APc": 10.3948289,
        "APf": 7.88383302,
    },
}
SIZE = 300


def polygon(box: list[float]) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def random_scenes() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """30 images of 9 classes, three present and two known to be absent in each; noisy detections.

    One image has more than 300 detections.
    """
    rng = np.random.default_rng(0)

    def random_box() -> list[float]:
        x, y = rng.uniform(0, 150, 2)
        width, height = rng.uniform(8, 110, 2)
        return [float(x), float(y), float(width), float(height)]

    categories = [{"id": i, "name": f"c{i}", "frequency": "rcf"[i % 3]} for i in range(1, 10)]
    images, annotations, detections = [], [], []
    for image_id in range(1, 31):
        present = rng.choice(9, 3, replace=False) + 1
        others = [c for c in range(1, 10) if c not in present]
        absent = [int(c) for c in rng.choice(others, 2, replace=False)]
        partly = [int(present[0])] if image_id % 2 else []
        image = {"id": image_id, "height": SIZE, "width": SIZE, "neg_category_ids": absent}
        images.append({**image, "not_exhaustive_category_ids": partly})
        for category in present:
            for _ in range(rng.integers(1, 5)):
                box = random_box()
                annotation = {"image_id": image_id, "category_id": int(category), "bbox": box}
                annotation |= {"segmentation": polygon(box), "area": box[2] * box[3]}
                annotations.append(annotation)
                found = [value + float(rng.normal(0, 6)) for value in box]
                found[2:] = [max(side, 2) for side in found[2:]]
                found[:2] = [max(corner, 0) for corner in found[:2]]
                named = int(category) if rng.random() < 0.8 else int(rng.integers(1, 10))
                detection = {"image_id": image_id, "category_id": named, "bbox": found}
                detections.append({**detection, "score": float(rng.random())})
        for _ in range(330 if image_id == 7 else 6):
            detection = {"image_id": image_id, "category_id": int(rng.integers(1, 10))}
            detections.append({**detection, "bbox": random_box(), "score": float(rng.random())})
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def as_masks(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The boxes filled."""
    masks = []
    for detection in detections:
        code = mask_codec.merge(mask_codec.frPyObjects(polygon(detection["bbox"]), SIZE, SIZE))
        mask = {key: value for key, value in detection.items() if key != "bbox"}
        masks.append({**mask, "segmentation": {**code, "counts": code["counts"].decode()}})
    return masks


@pytest.mark.parametrize("iou_type", list(EXPECTED))
def test_numbers_equal_those_of_the_lvis_package(iou_type: str) -> None:
    truth, detections = random_scenes()
    found = as_masks(detections) if iou_type == "segm" else detections
    table = average_precision(truth, found, iou_type, federated=True)
    metrics: dict[str, float] = {**table.summary()}
    for name, frequency in LVISEvaluator.frequencies.items():
        chosen = [c["id"] for c in truth["categories"] if c["frequency"] == frequency]
        metrics[name] = table.over(chosen)
    assert metrics == pytest.approx(EXPECTED[iou_type], abs=1e-7)


def one_image(**image: Any) -> dict[str, Any]:
    """One object of class 1 in an image of which other classes are known or not."""
    known = {"neg_category_ids": [], "not_exhaustive_category_ids": [], **image}
    box = [10.0, 10.0, 50.0, 50.0]
    return {
        "images": [{"id": 1, "height": SIZE, "width": SIZE, **known}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box, "area": 2500.0}],
        "categories": [{"id": i, "name": f"c{i}", "frequency": "f"} for i in (1, 2)],
    }


def detection(category: int, x: float, score: float) -> dict[str, Any]:
    box = [x, 10.0, 50.0, 50.0]
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


@pytest.mark.parametrize(("partly", "expected"), [([], 50.0), ([1], 100.0)])
def test_unmatched_detections_are_ignored_where_not_all_is_annotated(
    partly: list[int], expected: float
) -> None:
    found = [detection(1, 200.0, 0.9), detection(1, 10.0, 0.8)]
    truth = one_image(not_exhaustive_category_ids=partly)
    table = average_precision(truth, found, "bbox", federated=True)
    assert table.summary()["AP"] == pytest.approx(expected)


@pytest.mark.parametrize(("better", "expected"), [(299, 100.0), (300, 0.0)])
def test_the_best_300_detections_of_every_image_are_kept(better: int, expected: float) -> None:
    """Whatever their category: those of another one push the match out."""
    others = [detection(2, 200.0, 0.9) for _ in range(better)]
    found = [detection(1, 10.0, 0.8), *others]
    table = average_precision(one_image(neg_category_ids=[2]), found, "bbox", federated=True)
    assert table.over([1]) == pytest.approx(expected)


def test_a_category_may_have_all_of_the_300() -> None:
    """Not only 100, as in COCO."""
    found = [detection(1, 10.0, 0.8), *(detection(1, 200.0, 0.9) for _ in range(250))]
    table = average_precision(one_image(), found, "bbox", federated=True)
    assert table.over([1]) == pytest.approx(100 / 251)


@contextmanager
def lvis_dataset(folder: Path, truth: dict[str, Any]) -> Iterator[GroundTruth]:
    file = folder / "lvis.json"
    file.write_text(json.dumps(truth))
    DatasetCatalog.register("small_lvis", list)
    MetadataCatalog.get("small_lvis").set(
        json_file=str(file),
        thing_classes=["cat, kitten", "dog"],
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
    )
    try:
        yield GroundTruth("small_lvis")
    finally:
        DatasetCatalog.remove("small_lvis")
        MetadataCatalog.remove("small_lvis")


def test_the_evaluator_reports_frequencies_and_its_convention(tmp_path: Path) -> None:
    truth = one_image()
    truth["annotations"][0]["segmentation"] = polygon(truth["annotations"][0]["bbox"])
    instances = Instances((SIZE, SIZE))
    instances.scores, instances.pred_classes = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    instances.pred_masks = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    instances.pred_masks[0, 10:60, 10:60] = True
    with lvis_dataset(tmp_path, truth) as ground_truth:
        evaluator = LVISEvaluator(ground_truth, tmp_path / "out", iou_types=("segm",))
        evaluator.reset()
        image = {"file_name": "1.jpg", "image_id": 1}
        evaluator.process([image], [{"instances": instances}])
        metrics = evaluator.evaluate()["segm"]
    assert metrics["AP"] == metrics["APf"] == metrics["AP-cat, kitten"] == pytest.approx(100)
    assert np.isnan(metrics["APr"])
    assert "LVIS" in json.loads((tmp_path / "out/segm_evaluation.json").read_text())["convention"]


def test_an_annotation_that_is_not_of_lvis_is_named(tmp_path: Path) -> None:
    truth = one_image()
    del truth["images"][0]["neg_category_ids"]
    truth["annotations"][0]["segmentation"] = []
    with (
        lvis_dataset(tmp_path, truth) as ground_truth,
        pytest.raises(ValueError, match=r"lvis\.json: images\[0\] lacks neg_category_ids"),
    ):
        LVISEvaluator(ground_truth, iou_types=("segm",)).reset()
