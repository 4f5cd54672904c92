"""Semantic labels of a training record, checked against the classes of the training set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torchvision import tv_tensors

from maskclippp.data.semantic_maps import check_label_range, read_semantic_labels
from maskclippp.errors import InputError
from maskclippp.files.images import check_same_size
from maskclippp.words.vocabulary import class_names_of


@dataclass(frozen=True)
class LabelRules:
    """Which values the labels of a dataset may have."""

    num_classes: int
    ignore_label: int
    dataset_name: str

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "LabelRules":
        """Those of the first training set; a ValueError when it has no ignore label."""
        mapper = f"INPUT.DATASET_MAPPER_NAME {cfg.INPUT.DATASET_MAPPER_NAME}"
        if not cfg.DATASETS.TRAIN:
            raise InputError(f"DATASETS.TRAIN is empty: {mapper} needs its ignore_label")
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        if metadata.get("ignore_label", None) is None:
            raise InputError(
                f"dataset {metadata.name} has no ignore_label in its metadata, which {mapper} needs"
            )
        return cls(len(class_names_of(metadata)), metadata.ignore_label, metadata.name)

    def read(self, record: Mapping[str, Any], height: int, width: int) -> tv_tensors.Mask:
        """Class ids int64 [h, w] of a record whose image is ``height`` x ``width``.

        Raises:
            ValueError: another size, or a value that is neither a class nor the ignore label;
                names the file.
        """
        semantic = read_semantic_labels(record, self.ignore_label)
        labels = semantic.labels
        check_same_size((height, width), record["file_name"], labels.shape, semantic.source)
        check_label_range(
            semantic,
            num_classes=self.num_classes,
            ignore_label=self.ignore_label,
            dataset_name=self.dataset_name,
        )
        return tv_tensors.Mask(torch.from_numpy(labels).long())
