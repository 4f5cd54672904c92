"""Panoptic quality on a dataset in COCO's panoptic format."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskclippp.data.coco_json import PanopticCategory, PanopticFile, PanopticImage, read_panoptic
from maskclippp.data.panoptic import category_id_shift, check_areas, pixel_counts
from maskclippp.data.semantic_maps import semantic_from_panoptic
from maskclippp.errors import InputError
from maskclippp.evaluation.base import ImageEvaluator, check_prediction_size, required
from maskclippp.evaluation.class_means import class_means
from maskclippp.evaluation.panoptic_quality import (
    ImageCounts,
    count_image,
    panoptic_quality,
    sum_counts,
)
from maskclippp.evaluation.picture_sheet import ScoredImage, SmallMap, every_nth, shrink
from maskclippp.files.atomic import write_json
from maskclippp.files.images import LabelArray
from maskclippp.records import ImageResult, Record

CONVENTION = (
    "COCO panoptic quality: matches have IoU > 0.5; void pixels leave the union; predictions "
    "mostly on void or on a crowd segment of their category are ignored; means over the categories "
    "that have a true or a predicted segment."
)
_LOGGER = logging.getLogger(__name__)


class _Prediction(NamedTuple):
    ids: LabelArray  # [H, W]
    entry: dict[str, Any]  # of predictions.json


class _Counted(NamedTuple):
    entry: dict[str, Any]
    counts: ImageCounts


class _Sums(NamedTuple):
    images: dict[Any, _Counted]  # by image_id
    surplus: list[str]  # file names of predicted images without annotation


class PanopticEvaluator(ImageEvaluator[_Prediction, _Sums]):
    """Compares ``panoptic_seg`` outputs with the panoptic JSON and PNGs of a dataset.

    Outputs hold ``panoptic_seg``: an id map [H, W] and a list of segments with ``id``,
    ``category_id`` and ``isthing``. The categories are contiguous classes of things (``isthing``
    True) or stuff; without ``isthing`` they are the dataset's own ids. If the list is None, the map
    holds ``class * label_divisor + instance``, and -1 is void.

    Segments are matched image by image; the maps are not kept. Results are under ``panoptic_seg``.
    If an image of the dataset has no prediction, :meth:`evaluate` raises InputError.
    """

    switch = "MODEL.MASK_FORMER.TEST.PANOPTIC_ON"
    sums_type = _Sums
    convention = CONVENTION
    sheet_of = ("panoptic_seg", "PQ")

    def reset(self) -> None:
        """Start over; a broken annotation file is reported here, before the model runs."""
        super().reset()
        _ = self._content

    def _predicted(self, record: Record, output: ImageResult) -> _Prediction | None:
        panoptic, segments = required(output, "panoptic_seg", record, self.switch)
        file_name, image_id = record["file_name"], record.get("image_id")
        if image_id not in self._annotations:
            self._sums.surplus.append(file_name)
            return None
        ids, converted = self._convert(panoptic, segments, file_name)
        stem = Path(file_name).stem
        entry = {"image_id": image_id, "file_name": f"{stem}.png", "segments_info": converted}
        return _Prediction(ids, entry)

    def _score(self, record: Record, prediction: _Prediction) -> tuple[_Sums, ScoredImage | None]:
        ids, entry = prediction
        segments = entry["segments_info"]
        true_segments = self._annotations[entry["image_id"]]["segments_info"]
        truth_file = self._truth.panoptic_file(record)
        truth_ids = self._truth.panoptic_ids(record)
        check_prediction_size(ids.shape, record, truth_ids.shape, truth_file)
        check_areas(
            pixel_counts(truth_ids), true_segments, f"{self._json_file}, panoptic map {truth_file}"
        )
        categories = {segment["id"]: segment["category_id"] for segment in segments}
        try:
            counts = count_image(ids, categories, truth_ids, true_segments)
        except InputError as error:
            raise InputError(f"panoptic prediction for {record['file_name']}: {error}") from error
        sums = _Sums({entry["image_id"]: _Counted(entry, counts)}, [])
        if self._folder is None:
            return sums, None
        picture = ScoredImage(
            score=panoptic_quality(counts, dict.fromkeys(counts, False))["PQ"],
            file_name=record["file_name"],
            truth=self._class_map(truth_ids, true_segments),
            prediction=self._class_map(ids, segments),
        )
        return sums, picture

    def _add(self, sums: _Sums, more: _Sums) -> None:
        sums.images.update(more.images)
        sums.surplus.extend(more.surplus)

    def _no_sums(self) -> _Sums:
        return _Sums({}, [])

    def _results(self, gathered: Sequence[_Sums]) -> dict[str, Any]:
        images = {i: counted for part in gathered for i, counted in part.images.items()}
        self._check_complete(images, [file for part in gathered for file in part.surplus])
        # Summed in dataset order, so that the number of processes does not affect the result.
        counts = sum_counts(images[image_id].counts for image_id in self._annotations)
        is_thing = {i: bool(category["isthing"]) for i, category in self._categories.items()}
        metrics = panoptic_quality(counts, is_thing)
        means = class_means("PQ", self._quality_per_class(counts), self._seen)
        # PQ itself is the mean over all categories of the JSON, registered or not.
        metrics.update((name, means[name]) for name in ("PQ(S)", "PQ(U)") if name in means)
        if self._folder is not None:
            self._write("panoptic_seg", metrics, self._per_category(counts))
            entries = [images[image_id].entry for image_id in self._annotations]
            write_json(self._folder / "predictions.json", {**self._content, "annotations": entries})
        return OrderedDict(panoptic_seg=metrics)

    def _check_complete(self, images: Mapping[Any, Any], surplus: Sequence[str]) -> None:
        """Warn about images without annotation; InputError for images without prediction."""
        if surplus:
            _LOGGER.warning(
                "%d predicted images, the first of them %s, have no annotation in %s and are not "
                "counted",
                len(surplus),
                surplus[0],
                self._json_file,
            )
        missing = [str(image_id) for image_id in self._annotations if image_id not in images]
        if missing:
            raise InputError(
                f"{len(missing)} images of dataset {self._truth.dataset_name} have no panoptic "
                f"prediction, the first with image_id {', '.join(missing[:10])}; they are listed "
                f"in {self._json_file}"
            )

    def _quality_per_class(self, counts: ImageCounts) -> npt.NDArray[np.float64]:
        """PQ in percent of each class [K]; NaN for classes without segments."""
        quality = np.full(self._truth.num_classes, np.nan)
        for identity, contiguous in self._contiguous_ids.items():
            if identity in counts and counts[identity].segments > 0:
                quality[contiguous] = 100 * counts[identity].panoptic_quality
        return quality

    def _per_category(self, counts: ImageCounts) -> list[dict[str, Any]]:
        return [
            {
                "id": identity,
                "class": self._name_of(identity),
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

    def _name_of(self, identity: int) -> str:
        """The words for a category, or its name in the JSON if they are those of the dataset."""
        if self._own_names is not None and identity in self._contiguous_ids:
            return self._own_names[self._contiguous_ids[identity]]
        name: str = self._categories[identity]["name"]
        return name

    def _class_map(self, ids: LabelArray, segments: Sequence[Mapping[str, Any]]) -> SmallMap:
        """A small class map of segments with dataset ids; ``num_classes`` is void."""
        void = self._truth.num_classes
        classes = [
            {"id": s["id"], "category_id": self._contiguous_ids.get(s["category_id"], void)}
            for s in segments
        ]
        return shrink(semantic_from_panoptic(every_nth(ids), classes, void))

    @property
    def _json_file(self) -> str:
        return self._truth.annotation_file("panoptic_json", self.switch)

    @cached_property
    def _content(self) -> PanopticFile:
        return read_panoptic(
            self._json_file,
            f"the panoptic annotation of dataset {self._truth.dataset_name}, because {self.switch} "
            "is set",
            with_areas=True,
        )

    @cached_property
    def _annotations(self) -> dict[Any, PanopticImage]:
        return {annotation["image_id"]: annotation for annotation in self._content["annotations"]}

    @cached_property
    def _categories(self) -> dict[int, PanopticCategory]:
        return {category["id"]: category for category in self._content["categories"]}

    @cached_property
    def _dataset_ids(self) -> dict[bool, dict[int, int]]:
        """The JSON's category ids by contiguous class, of things (True) and stuff (False)."""
        things = self._truth.metadata.thing_dataset_id_to_contiguous_id
        stuff = self._truth.metadata.stuff_dataset_id_to_contiguous_id
        # As for the records: a JSON may number from 0 the categories that are registered from 1.
        shift = category_id_shift(list(self._categories), [*things, *stuff])
        return {
            is_thing: {number: identity - shift for identity, number in mapping.items()}
            for is_thing, mapping in ((True, things), (False, stuff))
        }

    @cached_property
    def _contiguous_ids(self) -> dict[int, int]:
        """Contiguous classes of things and stuff by the JSON's category id."""
        by_kind = (self._dataset_ids[False], self._dataset_ids[True])
        return {identity: number for mapping in by_kind for number, identity in mapping.items()}

    def _convert(
        self, panoptic: Any, segments: Sequence[Mapping[str, Any]] | None, file_name: str
    ) -> tuple[LabelArray, list[dict[str, int]]]:
        """The id map as int32, and segments with the JSON's category ids."""
        ids = torch.as_tensor(panoptic).cpu().numpy().astype(np.int32)
        if segments is None:
            divisor, things = self._truth.metadata.label_divisor, self._truth.thing_ids
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
                    f"panoptic prediction for {file_name}: {category} is not a contiguous {kind} "
                    f"class of dataset {self._truth.dataset_name}"
                )
            category = mapping[category]
        if category not in self._categories:
            raise InputError(
                f"panoptic prediction for {file_name}: category {category} is not in "
                f"{self._json_file}"
            )
        return category
