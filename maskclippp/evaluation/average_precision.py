"""COCO average precision of detections, by faster-coco-eval if it is installed or by pycocotools.

Both compute the same numbers; the first does it in compiled code, the second in several processes
when there are very many detections. Those are started fresh ("spawn"): a process that uses CUDA
must not fork.
"""

import contextlib
import importlib.util
import io
import logging
import math
import multiprocessing
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
MAX_DETECTIONS = 100
FASTER, REFERENCE = "faster-coco-eval", "pycocotools"
_LOGGER = logging.getLogger(__name__)
_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
# A process takes seconds to start; one is worth it for this many detections.
_DETECTIONS_PER_PROCESS = 50_000

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


def coco_average_precision(
    truth: Mapping[str, Any],
    detections: Detections,
    iou_type: str,
    *,
    engine: str | None = None,
    processes: int = 0,
) -> PrecisionTable:
    """Precision over the images of ``truth`` by COCO's rules, at most 100 detections per category.

    Args:
        truth: ``images``, ``annotations`` and ``categories`` as in COCO's instance JSON.
        detections: ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation``.
        iou_type: "bbox" or "segm".
        engine: "faster-coco-eval" or "pycocotools"; None takes the first if it is installed.
        processes: pycocotools may match in this many processes.
    """
    if engine is None:
        engine = FASTER if importlib.util.find_spec("faster_coco_eval") else REFERENCE
    _LOGGER.info("%s AP of %d detections by %s", iou_type, len(detections), engine)
    if engine == FASTER:
        return _by_faster_coco_eval(truth, detections, iou_type)
    useful = min(processes, len(detections) // _DETECTIONS_PER_PROCESS)
    return accumulate(match(truth, detections, iou_type, processes=useful))


def match(
    truth: Mapping[str, Any],
    detections: Detections,
    iou_type: str,
    *,
    max_detections: int = MAX_DETECTIONS,
    processes: int = 0,
) -> COCOeval:
    """Match detections to the truth, image by image; pycocotools' object after ``evaluate``."""
    evaluation = _reference_evaluation(truth, detections, iou_type, max_detections)
    processes = min(processes, len(truth["images"]))
    if processes < 2:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
            evaluation.evaluate()
        return evaluation
    part = partial(_match_part, iou_type=iou_type, max_detections=max_detections)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        results = list(pool.map(part, *_parts(truth, detections, processes)))
    # pycocotools lists [category][area][image]; the images of all parts belong side by side.
    rows = len(evaluation.params.catIds) * len(evaluation.params.areaRng)
    evaluation.evalImgs = [
        entry
        for row in range(rows)
        for entries in results
        for entry in entries[row * len(entries) // rows : (row + 1) * len(entries) // rows]
    ]
    evaluation._paramsEval = evaluation.params
    return evaluation


def accumulate(evaluation: COCOeval) -> PrecisionTable:
    """The table of a matched evaluation, for its largest number of detections."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        evaluation.accumulate()
    return PrecisionTable(evaluation.eval["precision"][..., -1], evaluation.params.catIds)


def _parts(
    truth: Mapping[str, Any], detections: Detections, count: int
) -> tuple[list[Mapping[str, Any]], list[Detections]]:
    """Truth and detections of ``count`` runs of images, in the order of their ids."""
    images = sorted(truth["images"], key=lambda image: image["id"])
    part_of = {image["id"]: i * count // len(images) for i, image in enumerate(images)}
    truths: list[Mapping[str, Any]] = [
        {**truth, "images": [], "annotations": []} for _ in range(count)
    ]
    found: list[Detections] = [[] for _ in range(count)]
    for image in images:
        truths[part_of[image["id"]]]["images"].append(image)
    for annotation in truth["annotations"]:
        if annotation["image_id"] in part_of:
            truths[part_of[annotation["image_id"]]]["annotations"].append(annotation)
    for detection in detections:
        found[part_of[detection["image_id"]]].append(detection)
    return truths, found


def _match_part(
    truth: Mapping[str, Any], detections: Detections, *, iou_type: str, max_detections: int
) -> list[dict[str, Any] | None]:
    """What pycocotools finds for every category, area and image."""
    evaluation = match(truth, detections, iou_type, max_detections=max_detections)
    entries: list[dict[str, Any] | None] = evaluation.evalImgs
    return entries


def _reference_evaluation(
    truth: Mapping[str, Any], detections: Detections, iou_type: str, max_detections: int
) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(truth)
        coco.createIndex()
        found = coco.loadRes([dict(d) for d in detections]) if detections else COCO()
        evaluation = COCOeval(coco, found, iou_type)
    evaluation.params.imgIds = sorted(coco.getImgIds())
    evaluation.params.maxDets = [max_detections]
    return evaluation


def _by_faster_coco_eval(
    truth: Mapping[str, Any], detections: Detections, iou_type: str
) -> PrecisionTable:
    import faster_coco_eval

    # It takes whole numbers only; ADE20K's image ids are file stems. The order stays the same.
    ids = sorted(image["id"] for image in truth["images"])
    number_of = {identity: number for number, identity in enumerate(ids, start=1)}
    numbered_truth = {
        **truth,
        "images": [{**image, "id": number_of[image["id"]]} for image in truth["images"]],
        "annotations": _renamed(truth["annotations"], number_of),
    }
    coco = faster_coco_eval.COCO(numbered_truth, use_deepcopy=True)
    found = coco.loadRes(_renamed(detections, number_of))
    evaluation = faster_coco_eval.COCOeval_faster(
        coco, found, iou_type, print_function=_LOGGER.debug
    )
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)[..., -1]
    return PrecisionTable(precision, evaluation.params.catIds)


def _renamed(entries: Detections, number_of: Mapping[Any, int]) -> Detections:
    """The annotations or detections of these images, with numbers for image ids."""
    return [
        {**entry, "image_id": number_of[entry["image_id"]]}
        for entry in entries
        if entry["image_id"] in number_of
    ]


def _mean(precision: npt.NDArray[np.float64]) -> float:
    """Mean in percent of what is defined; NaN when nothing is."""
    valid = precision[precision > -1]
    return 100 * float(valid.mean()) if valid.size else math.nan
