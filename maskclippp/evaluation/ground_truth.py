"""Ground truth of a registered dataset: its metadata, and the annotation of its records."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from detectron2.data import MetadataCatalog

from maskclippp.data.semantic_maps import (
    SemanticLabels,
    check_label_range,
    read_semantic_labels,
)
from maskclippp.errors import InputError
from maskclippp.files.images import LabelArray, read_panoptic_ids
from maskclippp.records import Record, Segment
from maskclippp.words.vocabulary import Vocabulary, class_names_of


class GroundTruth:
    """Metadata of a dataset, and the annotation of its records.

    Records come from the dataset or from its evaluation mapper. Maps that the mapper has read are
    reused; other annotation files are read on demand. A record that lacks the requested annotation
    raises InputError.
    """

    def __init__(self, dataset_name: str) -> None:
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)

    @cached_property
    def class_names(self) -> list[str]:
        """All K classes in contiguous order, with their synonyms ("person, child")."""
        return class_names_of(self.metadata)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The classes as registered."""
        return Vocabulary.from_metadata(self.metadata)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @cached_property
    def thing_ids(self) -> dict[int, int]:
        """The dataset's own category id of each thing, by contiguous class."""
        mapping = self.metadata.thing_dataset_id_to_contiguous_id
        return {contiguous: identity for identity, contiguous in mapping.items()}

    @cached_property
    def thing_names(self) -> dict[int, str]:
        """Names of the things, with synonyms, by the dataset's own category id."""
        ids = [identity for _, identity in sorted(self.thing_ids.items())]
        return dict(zip(ids, self.metadata.thing_classes, strict=True))

    @cached_property
    def ignore_label(self) -> int:
        """The label of pixels to ignore."""
        label = self.metadata.get("ignore_label", None)
        if label is None:
            raise InputError(f"dataset {self.dataset_name} has no ignore_label in its metadata")
        return int(label)

    def annotation_file(self, key: str, switch: str) -> str:
        """The metadata entry ``key``; if missing, InputError names the ``switch`` that needs it."""
        file: str | None = self.metadata.get(key, None)
        if file is None:
            raise InputError(
                f"dataset {self.dataset_name} has no {key} in its metadata; set {switch} to False"
            )
        return file

    def segments_info(self, record: Record) -> Sequence[Segment]:
        """Panoptic segments of an image, with contiguous ``category_id``, in file order."""
        if "segments_info" not in record:
            raise self._no_panoptic_annotation(record)
        return record["segments_info"]

    def panoptic_ids(self, record: Record) -> LabelArray:
        """Segment ids [H, W] of an image, 0 = void."""
        mapped = _mapped(record, "pan_seg")
        return read_panoptic_ids(self.panoptic_file(record)) if mapped is None else mapped

    def panoptic_file(self, record: Record) -> str:
        """The panoptic PNG of an image."""
        if "pan_seg_file_name" not in record:
            raise self._no_panoptic_annotation(record)
        return record["pan_seg_file_name"]

    def semantic_labels(self, record: Record) -> SemanticLabels:
        """Class ids [H, W] of an image, ``num_classes`` for ignored pixels, and their file.

        Raises InputError naming the file, the first value that is not a class, and the valid range.
        """
        mapped = _mapped(record, "sem_seg")
        if mapped is None or record.get("ignore_label") != self.ignore_label:
            semantic = read_semantic_labels(record, self.ignore_label)
        else:
            semantic = SemanticLabels(mapped, _semantic_source(record))
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

    def _no_panoptic_annotation(self, record: Record) -> InputError:
        return InputError(
            f"image {record.get('file_name')} of dataset {self.dataset_name} has no panoptic "
            "annotation: its record lacks pan_seg_file_name or segments_info"
        )


def _mapped(record: Record, key: Literal["sem_seg", "pan_seg"]) -> LabelArray | None:
    """A map that the evaluation mapper has read, if it has the image's original size."""
    found = record.get(key)
    if found is None or tuple(found.shape) != (record.get("height"), record.get("width")):
        return None
    return found.numpy().astype(np.int32)


def _semantic_source(record: Record) -> str:
    """The file that the semantic labels of an evaluation input come from."""
    files = (record.get("sem_seg_file_name"), record.get("pan_seg_file_name"))
    existing = (file for file in files if file is not None and Path(file).is_file())
    return next(existing, record["file_name"])
