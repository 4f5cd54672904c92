"""Mask accuracy: how often a model that is given the true masks names their classes."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from maskclippp.data.semantic_maps import semantic_from_panoptic
from maskclippp.errors import InputError
from maskclippp.evaluation.confusion_pairs import confusion_pairs
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.model_outputs import required
from maskclippp.evaluation.picture_sheet import (
    PictureSheet,
    ScoredImage,
    SmallMap,
    every_nth,
    shrink,
)
from maskclippp.evaluation.result_files import write_results
from maskclippp.evaluation.seen_classes import SeenClasses, class_means
from maskclippp.files.images import LabelArray

CONVENTION = (
    "Every ground-truth mask counts once, whatever its size; accuracy per class, then the mean "
    "over the classes that have masks."
)


class MaskAccuracyEvaluator(DatasetEvaluator):
    """Counts correctly classified ground-truth masks.

    Outputs hold ``mask_cls``: one class per mask. The masks of an image are its distinct semantic
    labels, ascending, or with ``panoptic`` its segments in file order, crowd included. Images
    without predictions or without ground-truth masks are skipped. ``evaluate`` returns
    ``{"mask_acc": {metric: percentage}}`` on the main process and None on others; with an output
    folder it also writes them, tables per class and of confused classes, and a sheet of the best
    and worst images.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        panoptic: bool = False,
    ) -> None:
        self._truth = ground_truth
        self._folder = None if output_folder is None else Path(output_folder)
        self._panoptic = panoptic
        self._seen = SeenClasses()
        self.reset()

    def reset(self) -> None:
        size = self._truth.num_classes
        self._confusion = np.zeros((size, size), dtype=np.int64)
        self._sheet = PictureSheet()
        self._seen.reset()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count one batch; a ValueError names the image when the numbers of masks differ."""
        for image, output in zip(inputs, outputs, strict=True):
            classes = required(
                output, "mask_cls", image["file_name"], "MODEL.MASKCLIPPP.TEST.MASK_ACC"
            )
            predicted = torch.as_tensor(classes).cpu().numpy().astype(np.int64)
            labels, truth, ids = self._true_masks(image["file_name"])
            self._seen.update(output)
            if not len(predicted) or not len(truth):
                continue
            if len(predicted) != len(truth):
                raise InputError(
                    f"{image['file_name']}: {len(predicted)} predicted classes for {len(truth)} "
                    "ground-truth masks; mask accuracy needs MODEL.MASKCLIPPP.SEGMENTOR.NAME "
                    "GTSegmentor or PanGTSegmentor"
                )
            if predicted.min() < 0 or predicted.max() >= self._truth.num_classes:
                raise InputError(
                    f"{image['file_name']}: predicted classes {predicted.min()}..{predicted.max()},"
                    f" expected 0..{self._truth.num_classes - 1}"
                )
            np.add.at(self._confusion, (predicted, np.array(truth)), 1)
            if self._folder is not None:
                self._sheet.offer(
                    ScoredImage(
                        score=100 * float((predicted == truth).mean()),
                        file_name=image["file_name"],
                        truth=self._paint(labels, ids, truth),
                        prediction=self._paint(labels, ids, predicted.tolist()),
                    )
                )

    def evaluate(self) -> dict[str, Any] | None:
        if self._folder is not None:
            sheet = self._folder / "mask_acc_pictures.png"
            self._sheet.write(sheet, self._truth.class_names, "mask accuracy of the image")
        confusions = comm.gather(self._confusion)
        seen = self._seen.gather()
        if not comm.is_main_process():
            return None
        confusion = np.sum(confusions, axis=0)
        masks = confusion.sum(axis=0)
        with np.errstate(invalid="ignore"):
            accuracy = confusion.diagonal() / masks
        names = self._truth.class_names
        metrics = class_means("mMaskAcc", accuracy, seen)
        metrics.update((f"MaskAcc-{name}", float(accuracy[i])) for i, name in enumerate(names))
        metrics = OrderedDict((name, 100 * value) for name, value in metrics.items())
        if self._folder is not None:
            per_class = [
                {
                    "class": name,
                    "seen": None if seen is None else bool(seen[i]),
                    "MaskAcc": 100 * float(accuracy[i]),
                    "masks": int(masks[i]),
                }
                for i, name in enumerate(names)
            ]
            write_results(
                self._folder,
                task="mask_acc",
                dataset_name=self._truth.dataset_name,
                convention=CONVENTION,
                metrics=metrics,
                per_class=per_class,
                confusion_pairs=confusion_pairs(confusion, names),
            )
        return OrderedDict(mask_acc=metrics)

    def _true_masks(self, file_name: str) -> tuple[LabelArray, list[int], list[int]]:
        """A map [H, W] of mask ids, and of every mask its class and its id.

        The map of a panoptic dataset is only read for pictures.
        """
        if not self._panoptic:
            labels = self._truth.semantic_labels(file_name).labels
            counts = np.bincount(labels.ravel())[: self._truth.num_classes]
            classes = np.flatnonzero(counts).tolist()
            return labels, classes, classes
        segments = self._truth.segments_info(file_name)
        ids = np.zeros((1, 1), np.int32)
        if self._folder is not None:
            ids = self._truth.panoptic_ids(file_name)
        return ids, [int(s["category_id"]) for s in segments], [int(s["id"]) for s in segments]

    def _paint(self, labels: LabelArray, ids: list[int], classes: list[int]) -> SmallMap:
        """A small map in which every mask has the class given for it; bare where there is none."""
        masks = [{"id": i, "category_id": c} for i, c in zip(ids, classes, strict=True)]
        return shrink(semantic_from_panoptic(every_nth(labels), masks, self._truth.num_classes))
