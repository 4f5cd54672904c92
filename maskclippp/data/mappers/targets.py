"""Training targets from label maps: a mask per class, or a mask per panoptic segment.

A target reads a record's annotation as parts for the augmentation, and turns the augmented parts
into masks. For instance annotation see :mod:`maskclippp.data.mappers.objects`.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor
from torchvision import tv_tensors

from maskclippp.data.mappers.augmentation import Augmented
from maskclippp.data.mappers.transforms import ClassIds, Segments
from maskclippp.data.semantic_maps import check_label_range, read_semantic_labels
from maskclippp.errors import InputError
from maskclippp.files.images import check_same_size, read_panoptic_ids
from maskclippp.masks.label_maps import masks_of_labels
from maskclippp.records import Record
from maskclippp.words.vocabulary import class_names_of

Size = tuple[int, int]
"""Height and width."""


class Annotation(Protocol):
    """The annotation of an image of ``size``; its ``parts`` are augmented with the image."""

    @property
    def size(self) -> Size: ...

    @property
    def parts(self) -> tuple[tv_tensors.TVTensor, ...]: ...

    def instances(self, augmented: Augmented) -> tuple[Tensor, Tensor]:
        """Classes int64 [n] and masks bool [n, h, w] from the augmented parts."""


class Target(Protocol):
    """Reads the annotation of a record; ``size`` is that of its image.

    ``objects_key`` is the key of a record whose entries, but for crowds, are learned; None: other.
    """

    objects_key: ClassVar[str | None]

    def __call__(self, record: Record, size: Size) -> Annotation: ...


@dataclass(frozen=True)
class ClassRules:
    """The valid values in the label maps of a dataset."""

    num_classes: int
    ignore_label: int
    dataset_name: str

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "ClassRules":
        """The rules of the first training set; an InputError if it has no ignore label."""
        mapper = f"INPUT.DATASET_MAPPER_NAME {cfg.INPUT.DATASET_MAPPER_NAME}"
        if not cfg.DATASETS.TRAIN:
            raise InputError(f"DATASETS.TRAIN is empty: {mapper} needs its ignore_label")
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        if metadata.get("ignore_label", None) is None:
            raise InputError(
                f"dataset {metadata.name} has no ignore_label in its metadata, which {mapper} needs"
            )
        return cls(len(class_names_of(metadata)), metadata.ignore_label, metadata.name)

    def read(self, record: Record, size: Size) -> ClassIds:
        """Class ids int64 [h, w] of a record whose image has this size.

        Raises:
            InputError: the size of the label map differs, or a value is neither a class nor the
                ignore label; names the file.
        """
        semantic = read_semantic_labels(record, self.ignore_label)
        check_same_size(size, record["file_name"], semantic.labels.shape, semantic.source)
        check_label_range(
            semantic,
            num_classes=self.num_classes,
            ignore_label=self.ignore_label,
            dataset_name=self.dataset_name,
        )
        return torch.from_numpy(semantic.labels).long().as_subclass(ClassIds)


@dataclass(frozen=True)
class ClassTarget:
    """A mask per class in the image, by ascending class, from semantic or panoptic annotation."""

    objects_key: ClassVar[str | None] = None
    rules: ClassRules

    def __call__(self, record: Record, size: Size) -> "_Classes":
        if "annotations" in record:
            raise InputError(
                f"INPUT.DATASET_MAPPER_NAME mask_former_semantic reads semantic labels, but the "
                f"record of {record['file_name']} holds instance annotations"
            )
        return _Classes(size, (self.rules.read(record, size),), self.rules.ignore_label)


@dataclass(frozen=True)
class _Classes:
    size: Size
    parts: tuple[ClassIds]
    ignore_label: int

    def instances(self, augmented: Augmented) -> tuple[Tensor, Tensor]:
        (labels,) = augmented.parts
        classes = torch.unique(labels)
        classes = classes[classes != self.ignore_label]
        return classes, masks_of_labels(labels, classes)


@dataclass(frozen=True)
class SegmentTarget:
    """A mask per segment that is not a crowd, in the order of the annotation.

    Segments that the crop removes keep an empty mask.

    Args:
        rules: to read class ids as well, for crops with a category limit.
    """

    objects_key: ClassVar[str | None] = "segments_info"
    rules: ClassRules | None = None

    def __call__(self, record: Record, size: Size) -> "_Segments":
        if "pan_seg_file_name" not in record or "segments_info" not in record:
            raise InputError(
                f"the mapper of INPUT.DATASET_MAPPER_NAME needs panoptic annotation "
                f"(pan_seg_file_name and segments_info), which the record of "
                f"{record['file_name']} lacks; choose a panoptic dataset or the mapper "
                "mask_former_semantic"
            )
        file = record["pan_seg_file_name"]
        ids = torch.from_numpy(read_panoptic_ids(file))
        check_same_size(size, record["file_name"], ids.shape, file)
        segments = [s for s in record["segments_info"] if not s.get("iscrowd", 0)]
        class_ids = () if self.rules is None else (self.rules.read(record, size),)
        return _Segments(
            size=size,
            parts=(ids.as_subclass(Segments), *class_ids),
            ids=torch.tensor([s["id"] for s in segments], dtype=ids.dtype),
            classes=torch.tensor([s["category_id"] for s in segments], dtype=torch.int64),
        )


@dataclass(frozen=True)
class _Segments:
    size: Size
    parts: tuple[tv_tensors.TVTensor, ...]
    ids: Tensor
    classes: Tensor

    def instances(self, augmented: Augmented) -> tuple[Tensor, Tensor]:
        return self.classes, masks_of_labels(augmented.parts[0], self.ids)
