"""Instance segmentation: COCO average precision of boxes and masks."""

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from detectron2.structures import Instances

from maskclippp.errors import InputError
from maskclippp.evaluation.average_precision import (
    SUMMARY,
    Detections,
    average_precision,
)
from maskclippp.evaluation.base import ImageEvaluator, check_prediction_size, required
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance_truth import (
    SWITCH,
    ImageTruth,
    InstanceTruth,
    JsonInstances,
    PanopticThings,
)
from maskclippp.files.atomic import write_json
from maskclippp.masks.run_length import encode_masks
from maskclippp.records import ImageResult, Record
from maskclippp.words.requested import RequestedWords

CONVENTION = (
    "COCO average precision: IoU 0.50:0.05:0.95, at most 100 detections per image and category, "
    "crowd ignored."
)
_LOGGER = logging.getLogger(__name__)
# The key in COCO's files, and the field of predicted instances, of each kind of IoU.
_SHAPES = {"bbox": ("bbox", "pred_boxes"), "segm": ("segmentation", "pred_masks")}


class _Found(NamedTuple):
    images: list[ImageTruth]
    detections: Detections


class InstanceEvaluator(ImageEvaluator[Instances, _Found]):
    """Compares ``instances`` outputs with the COCO instance JSON of a dataset.

    If there is none (``json_file`` None), the things of the panoptic annotation are used instead.

    ``instances`` has ``scores`` [n], ``pred_classes`` [n] (contiguous), and ``pred_masks``
    [n, H, W] boolean and/or ``pred_boxes`` (x0, y0, x1, y1). Every predicted class must be in
    ``thing_dataset_id_to_contiguous_id``, which may have gaps.

    Results are under ``bbox`` and ``segm``: {} if no image was processed, all NaN if there are no
    detections.

    Args:
        iou_types: "bbox", "segm" or both. Boxes are meaningful only if the model computes them.
    """

    switch = SWITCH
    sums_type = _Found
    convention = CONVENTION
    federated = False
    # Metrics over the categories of a ``frequency``, by name.
    frequencies: ClassVar[Mapping[str, str]] = {}
    # Keys that the JSON must have besides ids and shapes.
    annotation_keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "images": (),
        "annotations": ("area", "iscrowd"),
        "categories": (),
    }

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        iou_types: Sequence[str] = tuple(_SHAPES),
        words: RequestedWords | None = None,
        threads: int = 0,
    ) -> None:
        if not iou_types or not set(iou_types) <= set(_SHAPES):
            raise InputError(
                f"iou_types: expected some of {tuple(_SHAPES)}, found {tuple(iou_types)}"
            )
        self._iou_types = tuple(iou_types)
        super().__init__(ground_truth, output_folder, words=words, threads=threads)
        self._instances = self._instance_truth()

    def reset(self) -> None:
        """Start over; a broken annotation file is reported here, before the model runs."""
        super().reset()
        self._instances.check()

    def _instance_truth(self) -> InstanceTruth:
        metadata, keys = self._truth.metadata, self.annotation_keys
        if metadata.get("json_file", None) is None and metadata.get("panoptic_json", None):
            return PanopticThings(self._truth)
        shapes = [_SHAPES[iou_type][0] for iou_type in self._iou_types]
        return JsonInstances(self._truth, {**keys, "annotations": (*keys["annotations"], *shapes)})

    def _predicted(self, record: Record, output: ImageResult) -> Instances:
        return required(output, "instances", record, self.switch).to("cpu")

    def _score(self, record: Record, prediction: Instances) -> tuple[_Found, None]:
        truth = self._instances.of_image(record)
        if "segm" in self._iou_types and prediction.has("pred_masks") and len(prediction):
            size, source = (truth.height, truth.width), self._instances.source
            check_prediction_size(prediction.pred_masks.shape, record, size, source)
        return _Found([truth], self._encode(prediction, record)), None

    def _add(self, sums: _Found, more: _Found) -> None:
        sums.images.extend(more.images)
        sums.detections.extend(more.detections)

    def _no_sums(self) -> _Found:
        return _Found([], [])

    def _results(self, gathered: Sequence[_Found]) -> dict[str, Any]:
        images = [image for part in gathered for image in part.images]
        detections = [detection for part in gathered for detection in part.detections]
        if not images:
            _LOGGER.warning("no image of %s was processed", self._truth.dataset_name)
            return {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._folder / "coco_instances_results.json", detections)
        content = self._instances.content(images)
        results = OrderedDict()
        for iou_type in self._iou_types:
            metrics, per_class = self._metrics(content, detections, iou_type)
            results[iou_type] = metrics
            self._write(iou_type, metrics, per_class)
        return results

    def _metrics(
        self, content: Mapping[str, Any], detections: Detections, iou_type: str
    ) -> tuple["OrderedDict[str, float]", list[dict[str, Any]]]:
        """Metrics in percent, and a row per class."""
        if not detections:
            return OrderedDict((name, math.nan) for name in (*SUMMARY, *self.frequencies)), []
        # With a box, the area would be that of the box, not of the mask.
        dropped = {"bbox": "segmentation", "segm": "bbox"}[iou_type]
        found = [{k: v for k, v in d.items() if k != dropped} for d in detections]
        table = average_precision(content, found, iou_type, federated=self.federated)
        metrics = table.summary()
        for name, frequency in self.frequencies.items():
            chosen = [c["id"] for c in content["categories"] if c["frequency"] == frequency]
            metrics[name] = table.over(chosen)
        names = self._truth.thing_names
        if self._own_names is not None:
            names = {i: self._own_names[index] for index, i in self._truth.thing_ids.items()}
        per_class: list[dict[str, Any]] = [
            {"id": category, "class": names[category], "AP": value}
            for category, value in table.per_category().items()
        ]
        if len(per_class) > 1:
            metrics.update((f"AP-{row['class']}", row["AP"]) for row in per_class)
        return metrics, per_class

    def _encode(self, instances: Instances, record: Record) -> Detections:
        detections: Detections = [
            {
                "image_id": record["image_id"],
                "category_id": self._dataset_id(int(category), record),
                "score": score,
            }
            for category, score in zip(
                instances.pred_classes.tolist(), instances.scores.tolist(), strict=True
            )
        ]
        for iou_type, (key, field) in _SHAPES.items():
            if iou_type not in self._iou_types:
                continue
            if not instances.has(field):
                raise InputError(
                    f"the predicted instances of {record['file_name']} have no {field}, which "
                    f"iou_type {iou_type} needs"
                )
            shapes = _boxes(instances) if iou_type == "bbox" else encode_masks(instances.pred_masks)
            for detection, shape in zip(detections, shapes, strict=True):
                detection[key] = shape
        return detections

    def _dataset_id(self, category: int, record: Record) -> int:
        if category not in self._truth.thing_ids:
            raise InputError(
                f"instance prediction for {record['file_name']}: class {category} is not a "
                f"thing of dataset {self._truth.dataset_name} (thing_dataset_id_to_contiguous_id)"
            )
        return self._truth.thing_ids[category]


def _boxes(instances: Instances) -> list[list[float]]:
    """Boxes as x, y, width, height."""
    boxes = instances.pred_boxes.tensor.cpu().double()
    boxes[:, 2:] -= boxes[:, :2]
    return [[float(value) for value in box] for box in boxes.tolist()]
