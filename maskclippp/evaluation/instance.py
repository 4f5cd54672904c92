"""Instance segmentation: COCO average precision of boxes and masks."""

import contextlib
import io
import itertools
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from pycocotools import mask as mask_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskclippp.data.files import read_json
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.model_outputs import check_mask_size, required
from maskclippp.evaluation.result_files import write_results
from maskclippp.output_files import write_json

CONVENTION = (
    "COCO average precision by pycocotools: IoU 0.50:0.05:0.95, at most 100 detections per image "
    "and category, crowd ignored."
)
_LOGGER = logging.getLogger(__name__)
_SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_SHAPE_KEYS = {"bbox": ("bbox",), "segm": ("segmentation",)}
_IOU_TYPES = tuple(_SHAPE_KEYS)
_SWITCH = "MODEL.MASK_FORMER.TEST.INSTANCE_ON"


class InstanceEvaluator(DatasetEvaluator):
    """Compares ``instances`` outputs with the COCO instance JSON of a dataset.

    ``instances`` has ``scores`` [n], ``pred_classes`` [n] (contiguous), and ``pred_masks``
    [n, H, W] boolean and/or ``pred_boxes`` (x0, y0, x1, y1). Every predicted class must be in
    ``thing_dataset_id_to_contiguous_id``, which may have gaps.

    Args:
        iou_types: any of "bbox" and "segm". Boxes are meaningful only if the model computes them.

    ``evaluate`` returns ``{"bbox": ..., "segm": ...}`` in percent on the main process and None on
    others; {} when no image was processed, NaN for all metrics when there is no detection.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        iou_types: Sequence[str] = _IOU_TYPES,
    ) -> None:
        if not iou_types or not set(iou_types) <= set(_IOU_TYPES):
            raise ValueError(f"iou_types: expected some of {_IOU_TYPES}, found {tuple(iou_types)}")
        self._truth = ground_truth
        self._folder = None if output_folder is None else Path(output_folder)
        self._iou_types = tuple(iou_types)
        self._clear()

    def reset(self) -> None:
        """Start anew; errors of the annotation file come here, before the model has run."""
        self._clear()
        _ = self._category_names

    def _clear(self) -> None:
        self._images = 0
        self._detections: list[dict[str, Any]] = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take the detections of one batch; a ValueError names the image that does not fit."""
        for image, output in zip(inputs, outputs, strict=True):
            instances = required(output, "instances", image["file_name"], _SWITCH)
            self._check_image(image, instances)
            self._images += 1
            self._detections.extend(self._encode(instances, image))

    def evaluate(self) -> dict[str, Any] | None:
        gathered = comm.gather((self._images, self._detections))
        if not comm.is_main_process():
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
            metrics, per_class = self._average_precision(detections, iou_type)
            results[iou_type] = metrics
            if self._folder is not None:
                write_results(
                    self._folder,
                    task=iou_type,
                    dataset_name=self._truth.dataset_name,
                    convention=CONVENTION,
                    metrics=metrics,
                    per_class=per_class,
                )
        return results

    def _average_precision(
        self, detections: list[dict[str, Any]], iou_type: str
    ) -> tuple["OrderedDict[str, float]", list[dict[str, Any]]]:
        names = self._category_names
        if not detections:
            return OrderedDict((name, float("nan")) for name in _SUMMARY), []
        # Without its box a mask is filed under its own area, not the box's.
        kept = "bbox" if iou_type == "bbox" else "segmentation"
        dropped = {"bbox", "segmentation"} - {kept}
        found = [{k: v for k, v in d.items() if k not in dropped} for d in detections]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
            evaluation = COCOeval(self._coco, self._coco.loadRes(found), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        metrics = OrderedDict(
            (name, _percent(evaluation.stats[i])) for i, name in enumerate(_SUMMARY)
        )
        # precision: IoU threshold, recall point, category, area range (all), detections (100)
        precisions = evaluation.eval["precision"][:, :, :, 0, -1]
        per_class: list[dict[str, Any]] = []
        for index, category in enumerate(evaluation.params.catIds):
            valid = precisions[:, :, index]
            valid = valid[valid > -1]
            value = 100 * float(valid.mean()) if valid.size else float("nan")
            per_class.append({"id": int(category), "class": names[int(category)], "AP": value})
        if len(per_class) > 1:
            for row in per_class:
                metrics[f"AP-{row['class']}"] = row["AP"]
        return metrics, per_class

    def _check_image(self, image: Mapping[str, Any], instances: Instances) -> None:
        annotated = self._coco.imgs.get(image.get("image_id"))
        if annotated is None:
            raise ValueError(
                f"image {image['file_name']} has image_id {image.get('image_id')!r}, which is no "
                f"image of {self._json_file}: records and annotation belong to different datasets"
            )
        if "segm" in self._iou_types and instances.has("pred_masks") and len(instances):
            check_mask_size(
                instances.pred_masks,
                image["file_name"],
                (annotated["height"], annotated["width"]),
                self._json_file,
            )

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
                    raise ValueError(
                        f"the predicted instances of {image['file_name']} have no {field}, which "
                        f"iou_type {'bbox' if key == 'bbox' else 'segm'} needs"
                    )
                values = _boxes(instances) if key == "bbox" else _masks(instances)
                for detection, value in zip(detections, values, strict=True):
                    detection[key] = value
        return detections

    def _dataset_id(self, category: int, image: Mapping[str, Any]) -> int:
        if category not in self._dataset_ids:
            raise ValueError(
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
        """The registered name (with synonyms) of every category of the JSON."""
        mapping = self._truth.metadata.thing_dataset_id_to_contiguous_id
        names = dict(zip(sorted(mapping, key=mapping.__getitem__), self._thing_names, strict=True))
        absent = [c["name"] for c in self._coco.dataset["categories"] if c["id"] not in names]
        if absent or len(self._coco.dataset["categories"]) != len(names):
            raise ValueError(
                f"{self._json_file} has {len(self._coco.dataset['categories'])} "
                f"categories, dataset {self._truth.dataset_name} {len(names)} things"
                + (f"; not registered: {', '.join(absent[:5])}" if absent else "")
            )
        return names

    @property
    def _thing_names(self) -> list[str]:
        names: list[str] = list(self._truth.metadata.thing_classes)
        return names

    @property
    def _json_file(self) -> str:
        return self._truth.annotation_file("json_file", _SWITCH)

    @cached_property
    def _coco(self) -> COCO:
        shape_keys = [key for iou_type in self._iou_types for key in _SHAPE_KEYS[iou_type]]
        content = read_json(
            self._json_file,
            {
                "images": ("id", "height", "width"),
                "annotations": ("image_id", "category_id", "area", "iscrowd", *shape_keys),
                "categories": ("id", "name"),
            },
            f"the instance annotation of dataset {self._truth.dataset_name}, because {_SWITCH} is "
            "set",
        )
        coco = COCO()
        coco.dataset = content
        coco.dataset.setdefault("info", {})
        # COCOeval takes id 0 for "unmatched" and merges equal ids; the ids mean nothing else.
        for number, annotation in enumerate(coco.dataset["annotations"], start=1):
            annotation["id"] = number
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


def _boxes(instances: Instances) -> list[list[float]]:
    boxes = instances.pred_boxes.tensor.cpu().double()
    boxes[:, 2:] -= boxes[:, :2]
    return [[float(value) for value in box] for box in boxes.tolist()]


def _masks(instances: Instances) -> list[dict[str, Any]]:
    if not len(instances):
        return []
    masks = instances.pred_masks.cpu().numpy().astype(np.uint8)
    codes = mask_codec.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    return [{"size": code["size"], "counts": code["counts"].decode("ascii")} for code in codes]


def _percent(value: float) -> float:
    return 100 * float(value) if value >= 0 else float("nan")
