"""COCO's average precision equals that of pycocotools, bit for bit."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as mask_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskclippp.evaluation.average_precision import average_precision
from tests.evaluation.golden_datasets import registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "instances.json").is_file()]
KEYS = {"bbox": "bbox", "segm": "segmentation"}

Scene = tuple[dict[str, Any], list[dict[str, Any]]]


def golden_scene(case: GoldenCase, iou_type: str) -> Scene:
    with registered(case) as dataset:
        metadata = dataset.ground_truth.metadata
        truth = json.loads(Path(metadata.json_file).read_text())
        ids = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
    detections = json.loads((case.path / "pred" / "instances.json").read_text())
    key = KEYS[iou_type]
    return truth, [
        {
            "image_id": d["image_id"],
            "category_id": ids[d["class"]],
            "score": d["score"],
            key: d.get(key, [10.0, 10.0, 20.0, 30.0]),
        }
        for d in detections
    ]


def random_scene(seed: int, iou_type: str) -> Scene:
    """Noisy rectangles, some of them crowd or polygons; equal scores; over 100 detections."""
    rng = np.random.default_rng(seed)
    height, width = 67, 91

    def blob() -> npt.NDArray[np.uint8]:
        mask = np.zeros((height, width), np.uint8)
        y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
        mask[y : y + rng.integers(1, 40), x : x + rng.integers(1, 60)] = 1
        return mask & (rng.random(mask.shape) < 0.95)

    def shapes(mask: npt.NDArray[np.uint8]) -> dict[str, Any]:
        code = mask_codec.encode(np.asfortranarray(mask, np.uint8))
        segmentation = {"size": code["size"], "counts": code["counts"].decode()}
        return {"bbox": mask_codec.toBbox(code).tolist(), "segmentation": segmentation}

    images, annotations, detections = [], [], []
    for image_id in range(1, 9):
        images.append({"id": image_id, "height": height, "width": width})
        masks = [(blob(), 3 * int(rng.integers(1, 4))) for _ in range(rng.integers(0, 8))]
        for mask, category in masks:
            annotation = {"image_id": image_id, "category_id": category, **shapes(mask)}
            annotation |= {"area": float(mask.sum()), "iscrowd": int(rng.random() < 0.2)}
            if not annotation["iscrowd"] and rng.random() < 0.3:
                x, y, w, h = annotation["bbox"]
                annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(annotation)
        for _ in range(500 if image_id == 1 else 30):
            mask, category = blob(), 3 * int(rng.integers(1, 4))
            if masks and rng.random() < 0.5:
                mask, category = masks[rng.integers(len(masks))]
                mask = mask & (rng.random(mask.shape) < rng.uniform(0.5, 1))
            score = round(float(rng.random()), 1)
            shape = {KEYS[iou_type]: shapes(mask)[KEYS[iou_type]]}
            detections.append(
                {"image_id": image_id, "category_id": category, "score": score, **shape}
            )
    categories = [{"id": 3 * i, "name": f"c{i}"} for i in range(1, 4)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def by_pycocotools(
    truth: dict[str, Any], detections: list[dict[str, Any]], iou_type: str
) -> npt.NDArray[np.float64]:
    dataset = {"info": {}, **copy.deepcopy(truth)}
    for number, annotation in enumerate(dataset["annotations"], start=1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(detections)), iou_type)
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


@pytest.mark.parametrize("iou_type", list(KEYS))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden_detections(case: GoldenCase, iou_type: str) -> None:
    truth, detections = golden_scene(case, iou_type)
    table = average_precision(truth, detections, iou_type)
    assert table.category_ids == sorted(category["id"] for category in truth["categories"])
    assert (table.precision == by_pycocotools(truth, detections, iou_type)).all()


@pytest.mark.parametrize("iou_type", list(KEYS))
@pytest.mark.parametrize("seed", range(4))
def test_random_detections(seed: int, iou_type: str) -> None:
    truth, detections = random_scene(seed, iou_type)
    precision = average_precision(truth, detections, iou_type).precision
    assert (precision == by_pycocotools(truth, detections, iou_type)).all()
    assert precision.max() > 0


def test_image_ids_may_be_texts() -> None:
    """Those of ADE20K are file stems."""
    truth, detections = golden_scene(CASES[-1], "segm")
    by_number = average_precision(truth, detections, "segm")
    for image in truth["images"]:
        image["id"] = f"ADE_val_{image['id']:08d}"
    for entry in (*truth["annotations"], *detections):
        entry["image_id"] = f"ADE_val_{entry['image_id']:08d}"
    by_text = average_precision(truth, detections, "segm")
    assert (by_text.precision == by_number.precision).all()


def test_annotations_of_unlisted_images_count_nowhere() -> None:
    truth, detections = golden_scene(CASES[-1], "segm")
    expected = average_precision(truth, detections, "segm")
    truth["annotations"].append({**truth["annotations"][0], "image_id": 10**9})
    table = average_precision(truth, detections, "segm")
    assert (table.precision == expected.precision).all()


def test_the_ids_of_annotations_mean_nothing() -> None:
    """COCO's evaluation merges equal ids and takes 0 for "unmatched"."""
    truth, detections = golden_scene(CASES[-1], "segm")
    expected = average_precision(truth, detections, "segm")
    for annotation in truth["annotations"]:
        annotation["id"] = 0
    assert (average_precision(truth, detections, "segm").precision == expected.precision).all()
    assert {annotation["id"] for annotation in truth["annotations"]} == {0}


@pytest.mark.parametrize(("rank", "counts"), [(50, True), (51, True), (100, True), (101, False)])
def test_the_best_100_detections_of_an_image_and_category_count(rank: int, *, counts: bool) -> None:
    truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    detections = [
        {
            "image_id": 1,
            "category_id": 1,
            "score": 1 - place / 200,
            "bbox": [0, 0, 10, 10] if place == rank else [50, 50, 10, 10],
        }
        for place in range(1, 121)
    ]
    table = average_precision(truth, detections, "bbox")
    assert table.summary()["AP"] == pytest.approx(100 / rank if counts else 0)
