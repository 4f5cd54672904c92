"""Instance segmentation: COCO average precision of boxes and masks."""

import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from maskclippp.errors import InputError
from maskclippp.evaluation.average_precision import (
    SUMMARY,
    Detections,
    PrecisionTable,
    coco_average_precision,
)
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance_truth import (
    SWITCH,
    InstanceTruth,
    JsonInstances,
    PanopticThings,
)
from maskclippp.evaluation.model_outputs import check_mask_size, required
from maskclippp.evaluation.result_files import write_results
from maskclippp.evaluation.workers import ImageWork
from maskclippp.files.atomic import write_json
from maskclippp.masks.run_length import encode_masks

CONVENTION = (
    "COCO average precision: IoU 0.50:0.05:0.95, at most 100 detections per image and category, "
    "crowd ignored."
)
_LOGGER = logging.getLogger(__name__)
_SHAPE_KEYS = {"bbox": ("bbox",), "segm": ("segmentation",)}
_IOU_TYPES = tuple(_SHAPE_KEYS)


class InstanceEvaluator(DatasetEvaluator):
    """Compares ``instances`` outputs with the COCO instance JSON of a dataset.

    A dataset without one (``json_file`` None) is judged by the things of its panoptic annotation.

    ``instances`` has ``scores`` [n], ``pred_classes`` [n] (contiguous), and ``pred_masks``
    [n, H, W] boolean and/or ``pred_boxes`` (x0, y0, x1, y1). Every predicted class must be in
    ``thing_dataset_id_to_contiguous_id``, which may have gaps.

    Args:
        iou_types: any of "bbox" and "segm". Boxes are meaningful only if the model computes them.
        workers: masks are encoded beside the model in so many threads, and very many detections
            are matched in so many processes; the numbers do not depend on it, but errors of an
            image then come with a later one, or from ``evaluate``.

    ``evaluate`` returns ``{"bbox": ..., "segm": ...}`` in percent on the main process and None on
    others; {} when no image was processed, NaN for all metrics when there is no detection.
    """

    convention = CONVENTION
    metric_names: tuple[str, ...] = SUMMARY

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        iou_types: Sequence[str] = _IOU_TYPES,
        workers: int = 0,
    ) -> None:
        if not iou_types or not set(iou_types) <= set(_IOU_TYPES):
            raise InputError(f"iou_types: expected some of {_IOU_TYPES}, found {tuple(iou_types)}")
        self._truth = ground_truth
        self._folder = None if output_folder is None else Path(output_folder)
        self._iou_types = tuple(iou_types)
        self._workers = workers
        self._work = ImageWork(self._add, workers)
        self._instances = self._instance_truth()
        self._clear()

    def reset(self) -> None:
        """Start anew; errors of the annotation file come here, before the model has run."""
        self._clear()
        self._instances.check()

    def _clear(self) -> None:
        self._work.clear()
        self._images = 0
        self._detections: list[dict[str, Any]] = []
        self._instances.clear()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take the detections of one batch; a ValueError names the image that does not fit."""
        for image, output in zip(inputs, outputs, strict=True):
            instances = required(output, "instances", image["file_name"], SWITCH)
            self._check_image(image, instances)
            self._images += 1
            self._work.submit(self._encode, instances.to("cpu"), image)

    def evaluate(self) -> dict[str, Any] | None:
        self._work.finish()
        gathered = comm.gather((self._images, self._detections))
        content = self._instances.gather()
        if content is None:
            return None
        if not sum(images for images, _ in gathered):
            _LOGGER.warning("no image of %s was processed", self._truth.dataset_name)
            return {}
        detections = list(itertools.chain.from_iterable(found for _, found in gathered))
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._folder / "coco_instances_results.json", detections)
        results = OrderedDict()
        for iou_type in self._iou_types:
            metrics, per_class = self._average_precision(content, detections, iou_type)
            results[iou_type] = metrics
            if self._folder is not None:
                write_results(
                    self._folder,
                    task=iou_type,
                    dataset_name=self._truth.dataset_name,
                    convention=self.convention,
                    metrics=metrics,
                    per_class=per_class,
                )
        return results

    def _average_precision(
        self, content: Mapping[str, Any], detections: Detections, iou_type: str
    ) -> tuple["OrderedDict[str, float]", list[dict[str, Any]]]:
        """Metrics in percent, and rows per class."""
        if not detections:
            return OrderedDict((name, math.nan) for name in self.metric_names), []
        # Without its box a mask is filed under its own area, not the box's.
        dropped = {"bbox": "segmentation", "segm": "bbox"}[iou_type]
        found = [{k: v for k, v in d.items() if k != dropped} for d in detections]
        table = self._precision(content, found, iou_type)
        metrics = self._summary(content, table)
        names = self._category_names
        per_class: list[dict[str, Any]] = [
            {"id": category, "class": names[category], "AP": value}
            for category, value in table.per_category().items()
        ]
        if len(per_class) > 1:
            for row in per_class:
                metrics[f"AP-{row['class']}"] = row["AP"]
        return metrics, per_class

    def _instance_truth(self) -> InstanceTruth:
        """Where the ground truth comes from."""
        metadata = self._truth.metadata
        if metadata.get("json_file", None) is None and metadata.get("panoptic_json", None):
            return PanopticThings(self._truth)
        shape_keys = [key for iou_type in self._iou_types for key in _SHAPE_KEYS[iou_type]]
        return JsonInstances(self._truth, ("area", "iscrowd", *shape_keys))

    def _precision(
        self, content: Mapping[str, Any], detections: Detections, iou_type: str
    ) -> PrecisionTable:
        return coco_average_precision(content, detections, iou_type, processes=self._workers)

    def _summary(
        self, content: Mapping[str, Any], table: PrecisionTable
    ) -> "OrderedDict[str, float]":
        """The metrics over all classes, by the names of ``metric_names``."""
        return table.summary()

    def _check_image(self, image: Mapping[str, Any], instances: Instances) -> None:
        size = self._instances.add(image)
        if "segm" in self._iou_types and instances.has("pred_masks") and len(instances):
            check_mask_size(instances.pred_masks, image["file_name"], size, self._instances.source)

    def _add(self, detections: list[dict[str, Any]]) -> None:
        self._detections.extend(detections)

    def _encode(self, instances: Instances, image: Mapping[str, Any]) -> list[dict[str, Any]]:
        scores = instances.scores.tolist()
        detections = [
            {
                "image_id": image["image_id"],
                "category_id": self._dataset_id(int(category), image),
                "score": score,
            }
            for category, score in zip(instances.pred_classes.tolist(), scores, strict=True)
        ]
        for key, field in (("bbox", "pred_boxes"), ("segmentation", "pred_masks")):
            if ("segm" if key == "segmentation" else key) in self._iou_types:
                if not instances.has(field):
                    raise InputError(
                        f"the predicted instances of {image['file_name']} have no {field}, which "
                        f"iou_type {'bbox' if key == 'bbox' else 'segm'} needs"
                    )
                values = _boxes(instances) if key == "bbox" else encode_masks(instances.pred_masks)
                for detection, value in zip(detections, values, strict=True):
                    detection[key] = value
        return detections

    def _dataset_id(self, category: int, image: Mapping[str, Any]) -> int:
        if category not in self._dataset_ids:
            raise InputError(
                f"instance prediction for {image['file_name']}: class {category} is no thing of "
                f"dataset {self._truth.dataset_name} (thing_dataset_id_to_contiguous_id)"
            )
        return self._dataset_ids[category]

    @cached_property
    def _dataset_ids(self) -> dict[int, int]:
        mapping = self._truth.metadata.thing_dataset_id_to_contiguous_id
        return {contiguous: identity for identity, contiguous in mapping.items()}

    @cached_property
    def _category_names(self) -> dict[int, str]:
        """The registered name (with synonyms) of every thing by dataset id."""
        names = self._truth.metadata.thing_classes
        ids = [identity for _, identity in sorted(self._dataset_ids.items())]
        return dict(zip(ids, names, strict=True))


def _boxes(instances: Instances) -> list[list[float]]:
    boxes = instances.pred_boxes.tensor.cpu().double()
    boxes[:, 2:] -= boxes[:, :2]
    return [[float(value) for value in box] for box in boxes.tolist()]
