"""Semantic segmentation: mIoU, fwIoU, mACC, pACC, seen and unseen classes, boundary numbers."""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from maskclippp.errors import InputError
from maskclippp.evaluation.confusion import (
    MAX_BOUNDARY_CLASSES,
    ClassScores,
    CountMatrix,
    FloatArray,
    boundary_confusion_matrix,
    boundary_iou,
    class_scores,
    confusion_matrix,
)
from maskclippp.evaluation.confusion_pairs import confusion_pairs
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.model_outputs import required
from maskclippp.evaluation.picture_sheet import PictureSheet, ScoredImage, shrink
from maskclippp.evaluation.result_files import write_results
from maskclippp.evaluation.seen_classes import (
    BoolArray,
    SeenClasses,
    class_means,
    nan_mean,
)
from maskclippp.evaluation.workers import ImageWork
from maskclippp.files.atomic import write_json
from maskclippp.files.images import check_same_size
from maskclippp.masks.run_length import encode_mask

CONVENTION = (
    "Means over the classes that occur in the ground truth; the IoU of a class that is merely "
    "predicted is left out, its pixels count as errors of others; ignored pixels count nowhere."
)
_SWITCH = "MODEL.MASK_FORMER.TEST.SEMANTIC_ON"


class _CountedImage(NamedTuple):
    confusion: CountMatrix
    boundary_confusion: CountMatrix | None
    predictions: list[dict[str, Any]]
    picture: ScoredImage | None


class SemanticEvaluator(DatasetEvaluator):
    """Compares predicted label maps with the semantic ground truth of a dataset.

    Outputs hold ``sem_seg`` (scores [K, H, W]) or ``sem_seg_labels`` ([H, W], 0..K-1), at the
    original image size. ``evaluate`` returns ``{"sem_seg": {metric: percentage}}`` on the main
    process and None on others; with an output folder it also writes ``sem_seg_evaluation.json``,
    ``.csv``, tables per class and of confused classes, a sheet of the best and worst images, and
    ``sem_seg_predictions.json`` (run-length encoded masks with dataset category ids).

    Args:
        threads: images are counted beside the model in so many threads; the numbers do not depend
            on it, but errors of an image then come with a later one, or from ``evaluate``.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        threads: int = 0,
    ) -> None:
        self._truth = ground_truth
        self._folder = None if output_folder is None else Path(output_folder)
        self._work = ImageWork(self._add, threads)
        self._seen = SeenClasses()
        self.reset()

    def reset(self) -> None:
        size = self._truth.num_classes + 1
        self._confusion = np.zeros((size, size), dtype=np.int64)
        self._boundary_confusion = np.zeros_like(self._confusion)
        self._predictions: list[dict[str, Any]] = []
        self._sheet = PictureSheet()
        self._seen.reset()
        self._work.clear()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count one batch; a ValueError names the image when sizes or labels do not fit."""
        for image, output in zip(inputs, outputs, strict=True):
            file_name = image["file_name"]
            prediction = self._predicted_labels(output, file_name)
            self._truth.record(file_name)  # known before threads ask for it
            self._work.submit(self._count, prediction, file_name)
            self._seen.update(output)

    def _count(self, prediction: npt.NDArray[np.int32], file_name: str) -> _CountedImage:
        """Compare one prediction [H, W] with its ground truth."""
        num_classes = self._truth.num_classes
        truth, label_file = self._truth.semantic_labels(file_name)
        check_same_size(prediction.shape, f"prediction for {file_name}", truth.shape, label_file)
        confusion = confusion_matrix(prediction, truth, num_classes)
        boundary = None
        if self._has_boundaries:
            boundary = boundary_confusion_matrix(prediction, truth, num_classes)
        if self._folder is None:
            return _CountedImage(confusion, boundary, [], None)
        picture = ScoredImage(
            score=100 * nan_mean(class_scores(confusion).iou),
            file_name=file_name,
            truth=shrink(truth),
            prediction=shrink(prediction),
        )
        return _CountedImage(confusion, boundary, self._encode(prediction, file_name), picture)

    def _add(self, image: _CountedImage) -> None:
        self._confusion += image.confusion
        if image.boundary_confusion is not None:
            self._boundary_confusion += image.boundary_confusion
        self._predictions.extend(image.predictions)
        if image.picture is not None:
            self._sheet.offer(image.picture)

    def evaluate(self) -> dict[str, Any] | None:
        self._work.finish()
        if self._folder is not None:
            sheet = self._folder / "sem_seg_pictures.png"
            self._sheet.write(sheet, self._truth.class_names, "mIoU of the image")
        confusions = comm.gather((self._confusion, self._boundary_confusion))
        predictions = comm.gather(self._predictions)
        seen = self._seen.gather()
        if not comm.is_main_process():
            return None
        confusion = np.sum([c for c, _ in confusions], axis=0)
        boundary = np.sum([b for _, b in confusions], axis=0)
        scores = class_scores(confusion)
        metrics = self._metrics(scores, boundary_iou(boundary), seen)
        if self._folder is not None:
            pairs = confusion_pairs(confusion[:-1, :-1], self._truth.class_names)
            self._write(self._folder, metrics, scores, seen, pairs)
            write_json(
                self._folder / "sem_seg_predictions.json", list(itertools.chain(*predictions))
            )
        return OrderedDict(sem_seg=metrics)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts [K+1, K+1] of this process: rows predicted, columns true, the last one ignored."""
        self._work.finish()
        return self._confusion

    @property
    def _has_boundaries(self) -> bool:
        return self._truth.num_classes <= MAX_BOUNDARY_CLASSES

    def _metrics(
        self, scores: ClassScores, boundary_scores: FloatArray, seen: BoolArray | None
    ) -> "OrderedDict[str, float]":
        """All metrics in percent, in the published order."""
        lowest = np.minimum(scores.iou, boundary_scores)
        metrics = class_means("mIoU", scores.iou, seen)
        metrics["fwIoU"] = scores.frequency_weighted_iou
        for index, name in enumerate(self._truth.class_names):
            metrics[f"IoU-{name}"] = float(scores.iou[index])
            if self._has_boundaries:
                metrics[f"BoundaryIoU-{name}"] = float(boundary_scores[index])
                metrics[f"min(IoU, B-Iou)-{name}"] = float(lowest[index])
        metrics["mACC"] = nan_mean(scores.accuracy)
        metrics["pACC"] = scores.pixel_accuracy
        for index, name in enumerate(self._truth.class_names):
            metrics[f"ACC-{name}"] = float(scores.accuracy[index])
        return OrderedDict((name, 100 * value) for name, value in metrics.items())

    def _write(
        self,
        folder: Path,
        metrics: Mapping[str, float],
        scores: ClassScores,
        seen: BoolArray | None,
        pairs: Sequence[Mapping[str, Any]],
    ) -> None:
        per_class = [
            {
                "class": name,
                "seen": None if seen is None else bool(seen[index]),
                "IoU": 100 * float(scores.iou[index]),
                "ACC": 100 * float(scores.accuracy[index]),
                "truth_pixels": int(scores.truth_pixels[index]),
            }
            for index, name in enumerate(self._truth.class_names)
        ]
        write_results(
            folder,
            task="sem_seg",
            dataset_name=self._truth.dataset_name,
            convention=CONVENTION,
            metrics=metrics,
            per_class=per_class,
            confusion_pairs=pairs,
        )

    def _predicted_labels(self, output: Mapping[str, Any], file_name: str) -> npt.NDArray[np.int32]:
        if output.get("sem_seg_labels") is None and output.get("sem_seg") is not None:
            labels = output["sem_seg"].argmax(dim=0)
        else:
            labels = torch.as_tensor(required(output, "sem_seg_labels", file_name, _SWITCH))
        prediction = labels.cpu().numpy().astype(np.int32)
        highest = self._truth.num_classes - 1
        if prediction.size and not 0 <= prediction.min() <= prediction.max() <= highest:
            raise InputError(
                f"prediction for {file_name}: labels {prediction.min()}..{prediction.max()}, "
                f"expected 0..{highest} ({self._truth.dataset_name} has {highest + 1} classes)"
            )
        return prediction

    def _encode(self, prediction: npt.NDArray[np.int32], file_name: str) -> list[dict[str, Any]]:
        columns = np.asfortranarray(prediction)
        # One label at a time: all masks of an image together can fill the memory.
        return [
            {
                "file_name": file_name,
                "category_id": self._dataset_id(int(label)),
                "segmentation": encode_mask(columns == label),
            }
            for label in np.flatnonzero(np.bincount(prediction.ravel()))
        ]

    def _dataset_id(self, label: int) -> int:
        if self._dataset_ids is None:
            return label
        if label not in self._dataset_ids:
            raise KeyError(
                f"class {label} has no entry in stuff_dataset_id_to_contiguous_id of dataset "
                f"{self._truth.dataset_name}"
            )
        return self._dataset_ids[label]

    @cached_property
    def _dataset_ids(self) -> dict[int, int] | None:
        mapping = self._truth.metadata.get("stuff_dataset_id_to_contiguous_id", None)
        return None if mapping is None else {v: k for k, v in mapping.items()}
