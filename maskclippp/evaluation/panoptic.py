"""Panoptic quality of a model's outputs on a dataset in COCO's panoptic format."""

import logging
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

from maskclippp.data.panoptic import category_id_shift, check_segments
from maskclippp.data.semantic_maps import semantic_from_panoptic
from maskclippp.errors import InputError
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.model_outputs import required
from maskclippp.evaluation.panoptic_quality import (
    ImageCounts,
    count_image,
    panoptic_quality,
    sum_counts,
)
from maskclippp.evaluation.picture_sheet import (
    PictureSheet,
    ScoredImage,
    SmallMap,
    every_nth,
    shrink,
)
from maskclippp.evaluation.result_files import write_results
from maskclippp.evaluation.seen_classes import SeenClasses, class_means
from maskclippp.evaluation.workers import ImageWork
from maskclippp.files.atomic import write_json
from maskclippp.files.images import LabelArray, check_same_size, read_json, read_panoptic_ids

CONVENTION = (
    "COCO panoptic quality: matches have IoU > 0.5; void pixels leave the union; predictions "
    "mostly on void or on a crowd segment of their category are ignored; means over the categories "
    "that have any true or predicted segment."
)
_LOGGER = logging.getLogger(__name__)
_SWITCH = "MODEL.MASK_FORMER.TEST.PANOPTIC_ON"
_REQUIRED_KEYS = {
    "annotations": ("image_id", "file_name", "segments_info"),
    "categories": ("id", "name", "isthing"),
}


class _CountedImage(NamedTuple):
    prediction: dict[str, Any]  # entry of predictions.json
    counts: ImageCounts
    picture: ScoredImage | None


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

    Args:
        threads: images are matched beside the model in so many threads; the numbers do not depend
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
        self._clear()

    def reset(self) -> None:
        """Start anew; errors of the annotation file come here, before the model has run."""
        self._clear()
        _ = self._content

    def _clear(self) -> None:
        self._work.clear()
        self._sheet = PictureSheet()
        self._seen.reset()
        self._surplus: list[str] = []
        self._counts: dict[Any, ImageCounts] = {}
        self._predictions: dict[Any, dict[str, Any]] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Match the segments of one batch; errors name the image."""
        for image, output in zip(inputs, outputs, strict=True):
            self._seen.update(output)
            image_id = image.get("image_id")
            panoptic, listed = required(output, "panoptic_seg", image["file_name"], _SWITCH)
            if image_id not in self._annotations:
                self._surplus.append(image["file_name"])
                continue
            annotation = self._annotations[image_id]
            ids, segments = self._convert(panoptic, listed, image["file_name"])
            prediction = {
                "image_id": image_id,
                "file_name": f"{Path(image['file_name']).stem}.png",
                "segments_info": segments,
            }
            self._work.submit(self._count, image["file_name"], ids, prediction, annotation)

    def _count(
        self,
        file_name: str,
        ids: LabelArray,
        prediction: dict[str, Any],
        annotation: Mapping[str, Any],
    ) -> _CountedImage:
        """Match the segments of one prediction [H, W] with the annotated ones."""
        segments = prediction["segments_info"]
        truth_file = Path(self._truth.metadata.panoptic_root) / annotation["file_name"]
        truth_ids = read_panoptic_ids(truth_file)
        check_same_size(ids.shape, f"prediction for {file_name}", truth_ids.shape, truth_file)
        categories = {segment["id"]: segment["category_id"] for segment in segments}
        try:
            counts = count_image(ids, categories, truth_ids, annotation["segments_info"])
        except ValueError as error:
            raise InputError(f"panoptic prediction for {file_name}: {error}") from error
        picture = None
        if self._folder is not None:
            is_thing = dict.fromkeys(counts, False)
            picture = ScoredImage(
                score=panoptic_quality(counts, is_thing)["PQ"],
                file_name=file_name,
                truth=self._class_map(truth_ids, annotation["segments_info"]),
                prediction=self._class_map(ids, segments),
            )
        return _CountedImage(prediction, counts, picture)

    def _add(self, image: _CountedImage) -> None:
        image_id = image.prediction["image_id"]
        self._counts[image_id] = image.counts
        self._predictions[image_id] = image.prediction
        if image.picture is not None:
            self._sheet.offer(image.picture)

    def _class_map(self, ids: LabelArray, segments: Sequence[Mapping[str, Any]]) -> SmallMap:
        """Contiguous classes of a shrunk map of segments with dataset ids; bare where void."""
        bare = self._truth.num_classes
        classes = [
            {"id": s["id"], "category_id": self._contiguous_ids.get(s["category_id"], bare)}
            for s in segments
        ]
        small = every_nth(ids)
        return shrink(semantic_from_panoptic(small, classes, bare))

    def evaluate(self) -> dict[str, Any] | None:
        self._work.finish()
        if self._folder is not None:
            sheet = self._folder / "panoptic_seg_pictures.png"
            self._sheet.write(sheet, self._truth.class_names, "PQ of the image")
        seen = self._seen.gather()
        gathered = comm.gather((self._counts, self._predictions))
        surplus = [file for files in comm.gather(self._surplus) for file in files]
        if not comm.is_main_process():
            return None
        if surplus:
            _LOGGER.warning(
                "%d predicted images, the first of them %s, have no annotation in %s: they count "
                "nowhere",
                len(surplus),
                surplus[0],
                self._json_file,
            )
        counts_of = {image: c for counts, _ in gathered for image, c in counts.items()}
        missing = [str(image_id) for image_id in self._annotations if image_id not in counts_of]
        if missing:
            raise InputError(
                f"{len(missing)} images of dataset {self._truth.dataset_name} have no panoptic "
                f"prediction, the first with image_id {', '.join(missing[:10])}; they are listed "
                f"in {self._json_file}"
            )
        # Summed in the order of the dataset, so that the number of processes changes nothing.
        counts = sum_counts(counts_of[image_id] for image_id in self._annotations)
        is_thing = {i: bool(category["isthing"]) for i, category in self._categories.items()}
        metrics = panoptic_quality(counts, is_thing)
        means = class_means("PQ", self._quality_per_class(counts), seen)
        # PQ itself is the mean over the JSON's categories, whatever classes are registered.
        metrics.update((name, means[name]) for name in ("PQ(S)", "PQ(U)") if name in means)
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

    @property
    def _json_file(self) -> str:
        return self._truth.annotation_file("panoptic_json", _SWITCH)

    @cached_property
    def _content(self) -> dict[str, Any]:
        content = read_json(
            self._json_file,
            _REQUIRED_KEYS,
            f"the panoptic annotation of dataset {self._truth.dataset_name}, because {_SWITCH} is "
            "set",
        )
        for annotation in content["annotations"]:
            check_segments(annotation, self._json_file, ("id", "category_id", "area"))
        return content

    @cached_property
    def _annotations(self) -> dict[Any, dict[str, Any]]:
        return {annotation["image_id"]: annotation for annotation in self._content["annotations"]}

    @cached_property
    def _categories(self) -> dict[int, dict[str, Any]]:
        return {category["id"]: category for category in self._content["categories"]}

    @cached_property
    def _dataset_ids(self) -> dict[bool, dict[int, int]]:
        """The JSON's category id by contiguous class, of things (True) and stuff (False)."""
        things = self._truth.metadata.thing_dataset_id_to_contiguous_id
        stuff = self._truth.metadata.stuff_dataset_id_to_contiguous_id
        # As the records are read: a JSON may count from 0 what is registered from 1.
        shift = category_id_shift(list(self._categories), [*things, *stuff])
        return {
            True: {number: identity - shift for identity, number in things.items()},
            False: {number: identity - shift for identity, number in stuff.items()},
        }

    @cached_property
    def _contiguous_ids(self) -> dict[int, int]:
        """Contiguous classes by dataset id, of things and stuff."""
        by_kind = (self._dataset_ids[False], self._dataset_ids[True])
        return {identity: number for mapping in by_kind for number, identity in mapping.items()}

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
                raise InputError(
                    f"panoptic prediction for {file_name}: {category} is no contiguous {kind} "
                    f"class of dataset {self._truth.dataset_name}"
                )
            category = mapping[category]
        if category not in self._categories:
            raise InputError(
                f"panoptic prediction for {file_name}: category {category} is not in "
                f"{self._json_file}"
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
