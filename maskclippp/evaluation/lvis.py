"""Average precision on LVIS, whose images are annotated for some of the classes only.

LVIS is federated (Gupta et al., 2019): of each image only some classes are known to be there or
not, and of some classes not every instance is annotated. The ``lvis`` package that evaluates this
does not run with NumPy 2, and the rules are few, so they stand here.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from maskclippp.evaluation.average_precision import (
    SUMMARY,
    Detections,
    PrecisionTable,
    accumulate,
    match,
)
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.instance_truth import InstanceTruth, JsonInstances

MAX_DETECTIONS = 300
FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}
_SHAPE_KEYS = {"bbox": "bbox", "segm": "segmentation"}


class LVISEvaluator(InstanceEvaluator):
    """As :class:`InstanceEvaluator`, by LVIS's rules.

    An image's detections count for the classes that are annotated in it or known to be absent, at
    most 300 of highest score over all classes; where not every instance of a class is annotated,
    detections without a match are ignored. APr, APc and APf are means over rare, common and
    frequent classes.
    """

    convention = (
        "LVIS average precision: IoU 0.50:0.05:0.95, at most 300 detections per image over all "
        "classes; classes count in images that are annotated for them."
    )
    metric_names = (*SUMMARY, *FREQUENCIES)

    def _instance_truth(self) -> InstanceTruth:
        return JsonInstances(
            self._truth,
            ("area", *(_SHAPE_KEYS[iou_type] for iou_type in self._iou_types)),
            ("neg_category_ids", "not_exhaustive_category_ids"),
            ("frequency",),
        )

    def _precision(
        self, content: Mapping[str, Any], detections: Detections, iou_type: str
    ) -> PrecisionTable:
        return federated_average_precision(content, detections, iou_type, processes=self._workers)

    def _summary(
        self, content: Mapping[str, Any], table: PrecisionTable
    ) -> "OrderedDict[str, float]":
        metrics = table.summary()
        for name, frequency in FREQUENCIES.items():
            chosen = [c["id"] for c in content["categories"] if c["frequency"] == frequency]
            metrics[name] = table.over(chosen)
        return metrics


def federated_average_precision(
    truth: Mapping[str, Any], detections: Detections, iou_type: str, *, processes: int = 0
) -> PrecisionTable:
    """As ``coco_average_precision``, by LVIS's rules (:class:`LVISEvaluator`).

    Every image of ``truth`` has ``neg_category_ids`` and ``not_exhaustive_category_ids``.
    """
    judged = {image["id"]: set(image["neg_category_ids"]) for image in truth["images"]}
    partly = {image["id"]: set(image["not_exhaustive_category_ids"]) for image in truth["images"]}
    for annotation in truth["annotations"]:
        judged[annotation["image_id"]].add(annotation["category_id"])
    kept = [
        detection
        for detection in best_per_image(detections, MAX_DETECTIONS)
        if detection["category_id"] in judged[detection["image_id"]]
    ]
    evaluation = match(truth, kept, iou_type, max_detections=MAX_DETECTIONS, processes=processes)
    for entry in evaluation.evalImgs:
        if entry is not None and entry["category_id"] in partly[entry["image_id"]]:
            entry["dtIgnore"] = entry["dtIgnore"].astype(bool) | (entry["dtMatches"] == 0)
    return accumulate(evaluation)


def best_per_image(detections: Detections, limit: int) -> Detections:
    """The detections of highest score of every image, at most ``limit``; ties by their order."""
    by_image: dict[Any, Detections] = {}
    for detection in detections:
        by_image.setdefault(detection["image_id"], []).append(detection)
    return [
        detection
        for found in by_image.values()
        for detection in sorted(found, key=lambda d: -d["score"])[:limit]
    ]
