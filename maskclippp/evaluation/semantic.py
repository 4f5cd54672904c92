"""Semantic segmentation: mIoU, fwIoU, mACC, pACC, seen and unseen classes, boundary metrics."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskclippp.errors import InputError
from maskclippp.evaluation.base import ImageEvaluator, check_prediction_size, required
from maskclippp.evaluation.class_means import class_means, nan_mean
from maskclippp.evaluation.confusion import (
    MAX_BOUNDARY_CLASSES,
    ClassScores,
    CountMatrix,
    FloatArray,
    boundary_counts,
    boundary_iou,
    class_scores,
    confusion_matrix,
    confusion_pairs,
)
from maskclippp.evaluation.picture_sheet import ScoredImage, shrink
from maskclippp.files.atomic import write_json
from maskclippp.masks.run_length import encode_mask
from maskclippp.records import ImageResult, Record

CONVENTION = (
    "Means over the classes that occur in the ground truth; a class that is only predicted has no "
    "IoU, and its pixels count as errors of the true classes; ignored pixels are not counted. "
    "BoundaryIoU per class by its definition (Cheng et al., 2021), not by detectron2's method."
)

LabelMap = npt.NDArray[np.int32]


class _Counts(NamedTuple):
    confusion: CountMatrix
    boundary: CountMatrix | None  # [3, K], see boundary_counts; None: too many classes
    predictions: list[dict[str, Any]]  # entries of sem_seg_predictions.json


class SemanticEvaluator(ImageEvaluator[LabelMap, _Counts]):
    """Compares predicted label maps with the semantic ground truth of a dataset.

    Outputs hold ``sem_seg`` (scores [K, H, W]) or ``sem_seg_labels`` ([H, W], 0..K-1) at the
    original image size. Results are under ``sem_seg``. With an output folder it also writes
    ``sem_seg_evaluation.json`` and ``.csv``, tables of per-class scores and of confused classes, a
    sheet of the best and worst images, and ``sem_seg_predictions.json`` (run-length codes with the
    dataset's own category ids).
    """

    switch = "MODEL.MASK_FORMER.TEST.SEMANTIC_ON"
    sums_type = _Counts
    convention = CONVENTION
    sheet_of = ("sem_seg", "mIoU")

    @property
    def confusion(self) -> CountMatrix:
        """Counts [K+1, K+1] of this process: rows predicted, columns true, last: ignored pixels."""
        self._work.wait()
        return self._all_sums().confusion

    def _predicted(self, record: Record, output: ImageResult) -> LabelMap:
        if output.get("sem_seg_labels") is None and output.get("sem_seg") is not None:
            labels = output["sem_seg"].argmax(dim=0)
        else:
            labels = torch.as_tensor(required(output, "sem_seg_labels", record, self.switch))
        prediction = labels.cpu().numpy().astype(np.int32)
        highest = self._truth.num_classes - 1
        if prediction.size and not 0 <= prediction.min() <= prediction.max() <= highest:
            raise InputError(
                f"prediction for {record['file_name']}: labels {prediction.min()}.."
                f"{prediction.max()}, expected 0..{highest} ({self._truth.dataset_name} has "
                f"{highest + 1} classes)"
            )
        return prediction

    def _score(self, record: Record, prediction: LabelMap) -> tuple[_Counts, ScoredImage | None]:
        num_classes, file_name = self._truth.num_classes, record["file_name"]
        truth, label_file = self._truth.semantic_labels(record)
        check_prediction_size(prediction.shape, record, truth.shape, label_file)
        confusion = confusion_matrix(prediction, truth, num_classes)
        boundary = None
        if self._has_boundaries:
            boundary = boundary_counts(prediction, truth, num_classes)
        if self._folder is None:
            return _Counts(confusion, boundary, []), None
        picture = ScoredImage(
            score=100 * nan_mean(class_scores(confusion).iou),
            file_name=file_name,
            truth=shrink(truth),
            prediction=shrink(prediction),
        )
        return _Counts(confusion, boundary, self._encode(prediction, file_name)), picture

    def _add(self, sums: _Counts, more: _Counts) -> None:
        confusion, boundary, predictions = sums
        confusion += more.confusion
        if boundary is not None and more.boundary is not None:
            boundary += more.boundary
        predictions.extend(more.predictions)

    def _no_sums(self) -> _Counts:
        size = self._truth.num_classes + 1
        confusion = np.zeros((size, size), dtype=np.int64)
        boundary = np.zeros((3, size - 1), dtype=np.int64) if self._has_boundaries else None
        return _Counts(confusion, boundary, [])

    def _results(self, gathered: Sequence[_Counts]) -> dict[str, Any]:
        confusions, boundaries, predictions = zip(*gathered, strict=True)
        confusion = np.sum(confusions, axis=0)
        scores = class_scores(confusion)
        boundary_scores = boundary_iou(np.sum(boundaries, axis=0)) if self._has_boundaries else None
        metrics = self._metrics(scores, boundary_scores)
        if self._folder is not None:
            rows = self._class_rows(
                IoU=100 * scores.iou,
                ACC=100 * scores.accuracy,
                truth_pixels=scores.truth_pixels,
            )
            pairs = confusion_pairs(confusion[:-1, :-1], self._class_names)
            self._write("sem_seg", metrics, rows, pairs)
            entries = list(itertools.chain(*predictions))
            write_json(self._folder / "sem_seg_predictions.json", entries)
        return OrderedDict(sem_seg=metrics)

    @property
    def _has_boundaries(self) -> bool:
        return self._truth.num_classes <= MAX_BOUNDARY_CLASSES

    def _metrics(
        self, scores: ClassScores, boundary_scores: FloatArray | None
    ) -> "OrderedDict[str, float]":
        """All metrics in percent, in the published order."""
        metrics = class_means("mIoU", scores.iou, self._seen)
        metrics["fwIoU"] = scores.frequency_weighted_iou
        for index, name in enumerate(self._class_names):
            metrics[f"IoU-{name}"] = float(scores.iou[index])
            if boundary_scores is not None:
                boundary = boundary_scores[index]
                metrics[f"BoundaryIoU-{name}"] = float(boundary)
                metrics[f"min(IoU, B-Iou)-{name}"] = float(np.minimum(scores.iou[index], boundary))
        metrics["mACC"] = nan_mean(scores.accuracy)
        metrics["pACC"] = scores.pixel_accuracy
        for index, name in enumerate(self._class_names):
            metrics[f"ACC-{name}"] = float(scores.accuracy[index])
        return OrderedDict((name, 100 * value) for name, value in metrics.items())

    def _encode(self, prediction: LabelMap, file_name: str) -> list[dict[str, Any]]:
        """One entry per predicted class."""
        # One class at a time: all masks of an image at once might not fit in memory.
        return [
            {
                "file_name": file_name,
                "category_id": self._dataset_id(int(label)),
                "segmentation": encode_mask(prediction == label),
            }
            for label in np.flatnonzero(np.bincount(prediction.ravel()))
        ]

    def _dataset_id(self, label: int) -> int:
        if self._dataset_ids is None:
            return label
        if label not in self._dataset_ids:
            raise InputError(
                f"class {label} has no entry in stuff_dataset_id_to_contiguous_id of dataset "
                f"{self._truth.dataset_name}"
            )
        return self._dataset_ids[label]

    @cached_property
    def _dataset_ids(self) -> dict[int, int] | None:
        mapping = self._truth.metadata.get("stuff_dataset_id_to_contiguous_id", None)
        return None if mapping is None else {v: k for k, v in mapping.items()}
