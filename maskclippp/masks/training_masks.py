"""The masks of an image that a training step classifies, with their labels."""

from typing import NamedTuple

from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record


class LabeledMasks(NamedTuple):
    """Q masks of an image, and the class of each, int64 [Q]."""

    masks: SoftMasks
    labels: Tensor


def ground_truth_masks(record: Record, num_classes: int) -> LabeledMasks:
    """The annotated masks of a training record, bool [n, h, w], with their classes.

    Raises:
        InputError: a class is not in 0..num_classes-1; names the image file.
    """
    instances = record["instances"]
    labels: Tensor = instances.gt_classes
    invalid = labels[(labels < 0) | (labels >= num_classes)]
    if len(invalid):
        raise InputError(
            f"{record.get('file_name', 'an image')}: annotated class {int(invalid[0])}, but "
            f"DATASETS.TRAIN has {num_classes} classes (0..{num_classes - 1})"
        )
    masks: Tensor = getattr(instances.gt_masks, "tensor", instances.gt_masks)
    return LabeledMasks(SoftMasks(masks), labels)
