"""Mask accuracy: how often a model classifies the ground-truth masks correctly."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskclippp.data.semantic_maps import semantic_from_panoptic
from maskclippp.errors import InputError
from maskclippp.evaluation.base import ImageEvaluator, required
from maskclippp.evaluation.class_means import class_means
from maskclippp.evaluation.confusion import CountMatrix, confusion_pairs, ratio
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.picture_sheet import ScoredImage, SmallMap, every_nth, shrink
from maskclippp.files.images import LabelArray
from maskclippp.records import ImageResult, Record
from maskclippp.words.requested import RequestedWords

CONVENTION = (
    "Every ground-truth mask counts once, regardless of its size; accuracy per class, then the "
    "mean over the classes that have masks."
)

Classes = npt.NDArray[np.int64]


class _TrueMasks(NamedTuple):
    map: LabelArray  # mask ids [H, W]; [1, 1] if no pictures are needed
    ids: list[int]
    classes: Classes


class MaskAccuracyEvaluator(ImageEvaluator[Classes, CountMatrix]):
    """Counts correctly classified ground-truth masks.

    Outputs hold ``mask_cls``: one class per mask. The masks of an image are its distinct semantic
    labels in ascending order, or with ``panoptic`` its segments in file order, crowd included.
    Images without predictions or without ground-truth masks are skipped. Results are under
    ``mask_acc``. With an output folder it also writes them, tables of per-class accuracy and of
    confused classes, and a sheet of the best and worst images.
    """

    switch = "MODEL.MASKCLIPPP.TEST.MASK_ACC"
    sums_type = CountMatrix
    convention = CONVENTION
    sheet_of = ("mask_acc", "mask accuracy")

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        panoptic: bool = False,
        words: RequestedWords | None = None,
        threads: int = 0,
    ) -> None:
        super().__init__(ground_truth, output_folder, words=words, threads=threads)
        self._panoptic = panoptic

    def _predicted(self, record: Record, output: ImageResult) -> Classes:
        classes = required(output, "mask_cls", record, self.switch)
        return torch.as_tensor(classes).cpu().numpy().astype(np.int64)

    def _score(self, record: Record, prediction: Classes) -> tuple[CountMatrix, ScoredImage | None]:
        """Counts of the predicted and true classes of the masks [K, K], and a picture."""
        confusion, masks = self._no_sums(), self._true_masks(record)
        if not len(prediction) or not len(masks.classes):
            return confusion, None
        self._check(prediction, len(masks.classes), record["file_name"])
        np.add.at(confusion, (prediction, masks.classes), 1)
        picture = None
        if self._folder is not None:
            picture = ScoredImage(
                score=100 * float((prediction == masks.classes).mean()),
                file_name=record["file_name"],
                truth=self._paint(masks, masks.classes),
                prediction=self._paint(masks, prediction),
            )
        return confusion, picture

    def _add(self, sums: CountMatrix, more: CountMatrix) -> None:
        sums += more

    def _no_sums(self) -> CountMatrix:
        return np.zeros((self._truth.num_classes, self._truth.num_classes), dtype=np.int64)

    def _results(self, gathered: Sequence[CountMatrix]) -> dict[str, Any]:
        confusion = np.sum(gathered, axis=0)
        masks = confusion.sum(axis=0)
        accuracy = ratio(confusion.diagonal(), masks)
        names = self._class_names
        metrics = class_means("mMaskAcc", accuracy, self._seen)
        metrics.update((f"MaskAcc-{name}", float(accuracy[i])) for i, name in enumerate(names))
        metrics = OrderedDict((name, 100 * value) for name, value in metrics.items())
        rows = self._class_rows(MaskAcc=100 * accuracy, masks=masks)
        self._write("mask_acc", metrics, rows, confusion_pairs(confusion, names))
        return OrderedDict(mask_acc=metrics)

    def _true_masks(self, record: Record) -> _TrueMasks:
        if not self._panoptic:
            labels = self._truth.semantic_labels(record).labels
            counts = np.bincount(labels.ravel())[: self._truth.num_classes]
            classes = np.flatnonzero(counts)
            return _TrueMasks(labels, classes.tolist(), classes)
        segments = self._truth.segments_info(record)
        ids = np.zeros((1, 1), np.int32)
        if self._folder is not None:
            ids = self._truth.panoptic_ids(record)
        classes = np.array([segment["category_id"] for segment in segments], dtype=np.int64)
        return _TrueMasks(ids, [int(segment["id"]) for segment in segments], classes)

    def _check(self, prediction: Classes, masks: int, file_name: str) -> None:
        if len(prediction) != masks:
            raise InputError(
                f"{file_name}: {len(prediction)} predicted classes for {masks} ground-truth masks; "
                "mask accuracy needs MODEL.MASKCLIPPP.SEGMENTOR.NAME GTSegmentor or PanGTSegmentor"
            )
        if prediction.min() < 0 or prediction.max() >= self._truth.num_classes:
            raise InputError(
                f"{file_name}: predicted classes {prediction.min()}..{prediction.max()}, expected "
                f"0..{self._truth.num_classes - 1}"
            )

    def _paint(self, masks: _TrueMasks, classes: Classes) -> SmallMap:
        """A small class map of the masks; ``num_classes`` elsewhere."""
        painted = [
            {"id": i, "category_id": c} for i, c in zip(masks.ids, classes.tolist(), strict=True)
        ]
        return shrink(
            semantic_from_panoptic(every_nth(masks.map), painted, self._truth.num_classes)
        )
