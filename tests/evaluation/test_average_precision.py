"""Every way to compute COCO's average precision gives the same numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskclippp.evaluation.average_precision import (
    FASTER,
    REFERENCE,
    accumulate,
    coco_average_precision,
    match,
)
from maskclippp.evaluation.instance_truth import numbered
from tests.evaluation.golden_datasets import registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "instances.json").is_file()]
IOU_TYPES = ["bbox", "segm"]


def truth_and_detections(
    case: GoldenCase, iou_type: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with registered(case) as dataset:
        metadata = dataset.ground_truth.metadata
        truth = numbered(json.loads(Path(metadata.json_file).read_text()))
        ids = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
    detections = json.loads((case.path / "pred" / "instances.json").read_text())
    key = {"bbox": "bbox", "segm": "segmentation"}[iou_type]
    return truth, [
        {
            "image_id": d["image_id"],
            "category_id": ids[d["class"]],
            "score": d["score"],
            key: d.get(key, [10.0, 10.0, 20.0, 30.0]),
        }
        for d in detections
    ]


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_engines_agree(case: GoldenCase, iou_type: str) -> None:
    tables = [
        coco_average_precision(*truth_and_detections(case, iou_type), iou_type, engine=engine)
        for engine in (FASTER, REFERENCE)
    ]
    assert tables[0].category_ids == tables[1].category_ids
    np.testing.assert_allclose(tables[0].precision, tables[1].precision, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", [FASTER, REFERENCE])
def test_image_ids_may_be_texts(engine: str) -> None:
    """Those of ADE20K are file stems."""
    truth, detections = truth_and_detections(CASES[-1], "segm")
    by_number = coco_average_precision(truth, detections, "segm", engine=engine)
    truth, detections = truth_and_detections(CASES[-1], "segm")
    for image in truth["images"]:
        image["id"] = f"ADE_val_{image['id']:08d}"
    for entry in (*truth["annotations"], *detections):
        entry["image_id"] = f"ADE_val_{entry['image_id']:08d}"
    by_text = coco_average_precision(truth, detections, "segm", engine=engine)
    assert (by_text.precision == by_number.precision).all()


@pytest.mark.parametrize("engine", [FASTER, REFERENCE])
def test_annotations_of_unlisted_images_count_nowhere(engine: str) -> None:
    truth, detections = truth_and_detections(CASES[-1], "segm")
    expected = coco_average_precision(truth, detections, "segm", engine=engine)
    truth, detections = truth_and_detections(CASES[-1], "segm")
    truth["annotations"].append({**truth["annotations"][0], "image_id": 10**9})
    table = coco_average_precision(numbered(truth), detections, "segm", engine=engine)
    assert (table.precision == expected.precision).all()


@pytest.mark.processes
def test_several_processes_equal_one() -> None:
    truth, detections = truth_and_detections(CASES[-1], "segm")
    alone = accumulate(match(truth, detections, "segm"))
    truth, detections = truth_and_detections(CASES[-1], "segm")
    together = accumulate(match(truth, detections, "segm", processes=2))
    assert (together.precision == alone.precision).all()


def test_more_processes_than_images_are_possible() -> None:
    truth, detections = truth_and_detections(CASES[-1], "segm")
    first = truth["images"][0]["id"]
    truth["images"] = truth["images"][:1]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] == first]
    detections = [d for d in detections if d["image_id"] == first]
    table = accumulate(match(truth, detections, "segm", processes=2))
    assert table.precision.max() > -1
