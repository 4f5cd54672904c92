"""COCO and LVIS average precision of detections, computed by hotcoco."""

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
import numpy.typing as npt

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_LOGGER = logging.getLogger(__name__)
_MAX_DETECTIONS = 100  # COCO: per image and category
_MAX_FEDERATED_DETECTIONS = 300  # LVIS: per image, over all categories
_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}

Detections = list[dict[str, Any]]


@dataclass(frozen=True)
class PrecisionTable:
    """Precision [IoU threshold 10, recall point 101, category, area 4], -1 where undefined."""

    precision: npt.NDArray[np.float64]
    category_ids: Sequence[int]

    def summary(self) -> "OrderedDict[str, float]":
        """The metrics of ``SUMMARY`` in percent; NaN where there is no ground truth."""
        everything = self.precision[..., _AREAS["all"]]
        chosen = (everything, everything[0], everything[5])  # all IoU thresholds, 0.5, 0.75
        areas = (self.precision[..., _AREAS[name]] for name in ("small", "medium", "large"))
        return OrderedDict(zip(SUMMARY, map(_mean, (*chosen, *areas)), strict=True))

    def per_category(self) -> dict[int, float]:
        """AP in percent by category."""
        everything = self.precision[..., _AREAS["all"]]
        return {
            int(category): _mean(everything[:, :, index])
            for index, category in enumerate(self.category_ids)
        }

    def over(self, categories: Sequence[int]) -> float:
        """AP in percent over some categories."""
        chosen = np.isin(np.asarray(self.category_ids), categories)
        return _mean(self.precision[:, :, chosen, _AREAS["all"]])


def average_precision(
    truth: Mapping[str, Any], detections: Detections, iou_type: str, *, federated: bool = False
) -> PrecisionTable:
    """Precision over the images of ``truth``; annotations of other images are ignored.

    Args:
        truth: ``images``, ``annotations`` and ``categories`` as in COCO's instance JSON. Image ids
            may be strings. Annotation ids are not used; ``iscrowd`` is 0 by default.
        detections: ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation``.
        iou_type: "bbox" or "segm".
        federated: LVIS's rules (Gupta et al., 2019) instead of COCO's. Images then have
            ``neg_category_ids`` and ``not_exhaustive_category_ids``, categories ``frequency``. An
            image's detections count only for categories that are annotated in it or verified as
            absent, at most 300 over all categories. Where a category is not annotated exhaustively,
            unmatched detections are ignored.
    """
    _LOGGER.info("%s AP of %d detections", iou_type, len(detections))
    # hotcoco takes only integers; the image ids of ADE20K are file stems. The order is kept.
    ids = sorted(image["id"] for image in truth["images"])
    number_of = {identity: number for number, identity in enumerate(ids, start=1)}
    coco = hotcoco.COCO(
        {
            "images": [{**image, "id": number_of[image["id"]]} for image in truth["images"]],
            "annotations": [
                {**entry, "id": number, "iscrowd": entry.get("iscrowd", 0)}
                for number, entry in enumerate(_of(truth["annotations"], number_of), start=1)
            ],
            "categories": truth["categories"],
        }
    )
    found = coco.load_res(_of(detections, number_of))
    evaluation = hotcoco.COCOeval(coco, found, iou_type, lvis_style=federated)
    evaluation.params.max_dets = [_MAX_FEDERATED_DETECTIONS if federated else _MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)[..., -1]
    return PrecisionTable(precision, list(evaluation.params.cat_ids))


def _of(entries: Detections, number_of: Mapping[Any, int]) -> Detections:
    """The annotations or detections of numbered images, with the numbers as image ids."""
    return [
        {**entry, "image_id": number_of[entry["image_id"]]}
        for entry in entries
        if entry["image_id"] in number_of
    ]


def _mean(precision: npt.NDArray[np.float64]) -> float:
    """Mean of the defined values, in percent; NaN if there are none."""
    valid = precision[precision > -1]
    return 100 * float(valid.mean()) if valid.size else math.nan
