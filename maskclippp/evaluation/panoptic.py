"""Panoptic quality of a model's outputs on a dataset in COCO's panoptic format."""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from maskclippp.data.files import LabelArray, check_same_size, read_panoptic_ids
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.panoptic_quality import (
    ImageCounts,
    count_image,
    panoptic_quality,
    sum_counts,
)
from maskclippp.evaluation.result_files import log_results, write_json, write_results
from maskclippp.evaluation.seen_classes import SeenClasses, class_means

CONVENTION = (
    "COCO panoptic quality: matches have IoU > 0.5; void pixels leave the union; predictions "
    "mostly on void or on a crowd segment of their category are ignored; means over the categories "
    "that have any true or predicted segment."
)


class PanopticEvaluator(DatasetEvaluator):
    """Compares ``panoptic_seg`` outputs with the panoptic JSON and PNGs of a dataset.

    An output holds ``panoptic_seg``: (id map [H, W], segments). Segments have ``id``,
    ``category_id`` and ``isthing``; ids are contiguous and mapped to dataset ids through the thing
    map (``isthing`` True) or the stuff map; without ``isthing`` they are dataset ids already. When
    the list is None, the map holds ``category * label_divisor + instance``, -1 = void.

    Images are matched as they come, so memory does not grow with the maps. ``evaluate`` returns
    ``{"panoptic_seg": {metric: percentage}}`` on the main process and None on others, and raises
    ValueError when an image of the dataset was not predicted. Outputs that carry
    ``category_overlapping_mask`` add PQ(S) and PQ(U), over seen and unseen categories.
    """

    def __init__(self, ground_truth: GroundTruth, output_folder: str | Path | None = None) -> None:
        self._truth = ground_truth
        self._folder = None if output_folder is None else Path(output_folder)
        self._seen = SeenClasses()
        self.reset()

    def reset(self) -> None:
        self._seen.reset()
        self._counts: dict[Any, ImageCounts] = {}
        self._predictions: dict[Any, dict[str, Any]] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Match the segments of one batch; errors name the image."""
        for image, output in zip(inputs, outputs, strict=True):
            self._seen.update(output)
            image_id = image["image_id"]
            if image_id not in self._annotations:
                continue  # no ground truth: a surplus prediction
            annotation = self._annotations[image_id]
            panoptic, listed = output["panoptic_seg"]
            ids, segments = self._convert(panoptic, listed, image["file_name"])
            truth_file = Path(self._truth.metadata.panoptic_root) / annotation["file_name"]
            truth_ids = read_panoptic_ids(truth_file)
            check_same_size(
                ids.shape, f"prediction for {image['file_name']}", truth_ids.shape, truth_file
            )
            categories = {segment["id"]: segment["category_id"] for segment in segments}
            try:
                self._counts[image_id] = count_image(
                    ids, categories, truth_ids, annotation["segments_info"]
                )
            except ValueError as error:
                raise ValueError(
                    f"panoptic prediction for {image['file_name']}: {error}"
                ) from error
            self._predictions[image_id] = {
                "image_id": image_id,
                "file_name": f"{Path(image['file_name']).stem}.png",
                "segments_info": segments,
            }

    def evaluate(self) -> dict[str, Any] | None:
        seen = self._seen.gather()
        gathered = comm.gather((self._counts, self._predictions))
        if not comm.is_main_process():
            return None
        counts_of = {image: c for counts, _ in gathered for image, c in counts.items()}
        missing = [str(image_id) for image_id in self._annotations if image_id not in counts_of]
        if missing:
            raise ValueError(
                f"{len(missing)} images of dataset {self._truth.dataset_name} have no panoptic "
                f"prediction, the first with image_id {', '.join(missing[:10])}"
            )
        # Summed in the order of the dataset, so that the number of processes changes nothing.
        counts = sum_counts(counts_of[image_id] for image_id in self._annotations)
        is_thing = {i: bool(category["isthing"]) for i, category in self._categories.items()}
        metrics = panoptic_quality(counts, is_thing)
        metrics |= class_means("PQ", self._quality_per_class(counts), seen)
        log_results(self._truth.dataset_name, "panoptic_seg", metrics)
        if self._folder is not None:
            predictions = {i: p for _, part in gathered for i, p in part.items()}
            self._write(self._folder, metrics, counts, predictions)
        return OrderedDict(panoptic_seg=metrics)

    def _quality_per_class(self, counts: ImageCounts) -> npt.NDArray[np.float64]:
        """PQ in percent by contiguous class [K]; NaN for classes without any segment."""
        quality = np.full(self._truth.num_classes, np.nan)
        for is_thing in (True, False):
            for contiguous, identity in self._dataset_ids[is_thing].items():
                if identity in counts and counts[identity].segments > 0:
                    quality[contiguous] = 100 * counts[identity].panoptic_quality
        return quality

    @cached_property
    def _content(self) -> dict[str, Any]:
        path = Path(self._truth.metadata.panoptic_json)
        if not path.is_file():
            raise FileNotFoundError(
                f"panoptic annotation {path} of dataset {self._truth.dataset_name} does not exist; "
                "it is needed because MODEL.MASK_FORMER.TEST.PANOPTIC_ON is set"
            )
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    @cached_property
    def _annotations(self) -> dict[Any, dict[str, Any]]:
        return {annotation["image_id"]: annotation for annotation in self._content["annotations"]}

    @cached_property
    def _categories(self) -> dict[int, dict[str, Any]]:
        return {category["id"]: category for category in self._content["categories"]}

    @cached_property
    def _dataset_ids(self) -> dict[bool, dict[int, int]]:
        metadata = self._truth.metadata
        return {
            True: {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()},
            False: {v: k for k, v in metadata.stuff_dataset_id_to_contiguous_id.items()},
        }

    def _convert(
        self, panoptic: Any, segments: Sequence[Mapping[str, Any]] | None, file_name: str
    ) -> tuple[LabelArray, list[dict[str, int]]]:
        """The id map as int32 and the segments with ``id`` and dataset ``category_id``."""
        ids = torch.as_tensor(panoptic).cpu().numpy().astype(np.int32)
        if segments is None:
            divisor = self._truth.metadata.label_divisor
            things = self._truth.metadata.thing_dataset_id_to_contiguous_id.values()
            values = [int(value) for value in np.unique(ids) if value != -1]
            segments = [
                {"id": v + 1, "category_id": v // divisor, "isthing": v // divisor in things}
                for v in values
            ]
            ids = ids + 1
        converted = [
            {"id": int(s["id"]), "category_id": self._dataset_id(s, file_name)} for s in segments
        ]
        return ids, converted

    def _dataset_id(self, segment: Mapping[str, Any], file_name: str) -> int:
        category = int(segment["category_id"])
        if "isthing" in segment:
            mapping = self._dataset_ids[segment["isthing"] is True]
            if category not in mapping:
                kind = "thing" if segment["isthing"] is True else "stuff"
                raise ValueError(
                    f"panoptic prediction for {file_name}: {category} is no contiguous {kind} "
                    f"class of dataset {self._truth.dataset_name}"
                )
            category = mapping[category]
        if category not in self._categories:
            raise ValueError(
                f"panoptic prediction for {file_name}: category {category} is not in "
                f"{self._truth.metadata.panoptic_json}"
            )
        return category

    def _write(
        self,
        folder: Path,
        metrics: Mapping[str, float],
        counts: ImageCounts,
        predictions: Mapping[Any, Any],
    ) -> None:
        per_class = [
            {
                "id": identity,
                "class": self._categories[identity]["name"],
                "isthing": int(self._categories[identity]["isthing"]),
                "PQ": 100 * n.panoptic_quality,
                "SQ": 100 * n.segmentation_quality,
                "RQ": 100 * n.recognition_quality,
                "tp": n.tp,
                "fp": n.fp,
                "fn": n.fn,
            }
            for identity, n in sorted(counts.items())
            if n.segments > 0
        ]
        write_results(
            folder,
            task="panoptic_seg",
            dataset_name=self._truth.dataset_name,
            convention=CONVENTION,
            metrics=metrics,
            per_class=per_class,
        )
        annotations = [predictions[image_id] for image_id in self._annotations]
        write_json(folder / "predictions.json", {**self._content, "annotations": annotations})
