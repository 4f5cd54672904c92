"""Ground truth of a registered dataset, found by image file, as all evaluators need it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.semantic_maps import (
    SemanticLabels,
    check_label_range,
    read_semantic_labels,
)
from maskclippp.errors import InputError
from maskclippp.files.images import LabelArray, read_panoptic_ids
from maskclippp.words.vocabulary import class_names_of


class GroundTruth:
    """Records and metadata of a dataset; nothing is read before it is asked for."""

    def __init__(self, dataset_name: str) -> None:
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)

    @cached_property
    def class_names(self) -> list[str]:
        """All classes in contiguous order, synonyms included ("person, child")."""
        return class_names_of(self.metadata)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @cached_property
    def ignore_label(self) -> int:
        """The label of pixels that count for nothing."""
        label = self.metadata.get("ignore_label", None)
        if label is None:
            raise InputError(f"dataset {self.dataset_name} has no ignore_label in its metadata")
        return int(label)

    def annotation_file(self, key: str, switch: str) -> str:
        """The file that the metadata name under ``key``.

        A ValueError says that there is none, and which config ``switch`` asked for it.
        """
        file: str | None = self.metadata.get(key, None)
        if file is None:
            raise InputError(
                f"dataset {self.dataset_name} has no {key} in its metadata; set {switch} to False"
            )
        return file

    def record(self, file_name: str) -> Mapping[str, Any]:
        """The dataset's record of an image; a KeyError names image and dataset."""
        if file_name not in self._records:
            raise KeyError(f"image {file_name} is not in dataset {self.dataset_name}")
        return self._records[file_name]

    def segments_info(self, file_name: str) -> Sequence[Mapping[str, Any]]:
        """Panoptic segments of an image, with contiguous ``category_id``, in file order."""
        record = self.record(file_name)
        if "segments_info" not in record:
            raise InputError(
                f"image {file_name} of dataset {self.dataset_name} has no panoptic annotation"
            )
        segments: Sequence[Mapping[str, Any]] = record["segments_info"]
        return segments

    def panoptic_ids(self, file_name: str) -> LabelArray:
        """Segment ids [H, W] of an image, 0 = void."""
        record = self.record(file_name)
        if "pan_seg_file_name" not in record:
            raise InputError(
                f"image {file_name} of dataset {self.dataset_name} has no panoptic annotation"
            )
        return read_panoptic_ids(record["pan_seg_file_name"])

    def semantic_labels(self, file_name: str) -> SemanticLabels:
        """Class ids [H, W] of an image, ignored pixels as ``num_classes``, and their file.

        A ValueError names the file, the first value that is no class, and the allowed range.
        """
        semantic = read_semantic_labels(self.record(file_name), self.ignore_label)
        check_label_range(
            semantic,
            num_classes=self.num_classes,
            ignore_label=self.ignore_label,
            dataset_name=self.dataset_name,
        )
        ignored = semantic.labels == self.ignore_label
        return semantic._replace(
            labels=np.where(ignored, np.int32(self.num_classes), semantic.labels)
        )

    @cached_property
    def _records(self) -> dict[str, Mapping[str, Any]]:
        return {record["file_name"]: record for record in DatasetCatalog.get(self.dataset_name)}
