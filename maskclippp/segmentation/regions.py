"""The segments of an image for each task, on the CPU, with the mask that each one comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskclippp.inference.postprocess import ClassifiedMasks, binary_masks, instance_segmentation
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.label_maps import masks_of_labels

VOID = -1


@dataclass(frozen=True)
class Regions:
    """N segments: masks bool [N, H, W], and per segment class, score and number of its mask."""

    masks: Tensor
    classes: Tensor
    scores: Tensor
    mask_index: Tensor


def semantic_regions(found: ClassifiedMasks, labels: Tensor) -> Regions:
    """One region per class in labels [H, W], with the mask that is most likely of that class."""
    # Counting is faster than the sorting of unique().
    counts = torch.bincount(labels.flatten() - VOID, minlength=found.num_classes - VOID)
    classes = counts[-VOID:].nonzero()[:, 0]
    if len(classes) == 0:
        return _no_regions(labels.shape)
    best = found.probabilities[:, classes.to(found.logits.device)]
    scores, mask_index = best.max(dim=0)
    return Regions(masks_of_labels(labels, classes), classes, scores.cpu(), mask_index.cpu())


def panoptic_regions(
    found: ClassifiedMasks, ids: Tensor, segments: Sequence[Any], id_of_mask: Tensor
) -> Regions:
    """One region per segment, with its most probable mask; see :func:`panoptic_segments`."""
    ids, id_of_mask = ids.cpu(), id_of_mask.cpu()
    if not segments:
        return _no_regions(ids.shape)
    numbers = torch.tensor([segment["id"] for segment in segments])
    classes = torch.tensor([segment["category_id"] for segment in segments])
    probabilities = found.probabilities.cpu()[:, classes]
    of_segment = id_of_mask[:, None] == numbers
    scores, mask_index = probabilities.masked_fill(~of_segment, -1).max(dim=0)
    return Regions(masks_of_labels(ids, numbers), classes, scores, mask_index)


def instance_regions(
    found: ClassifiedMasks,
    size: tuple[int, int],
    things: frozenset[int],
    settings: InferenceSettings,
    threshold: float,
) -> Regions:
    """The objects of a score of ``threshold`` or more, best first."""
    objects = instance_segmentation(found, size, things, settings)
    kept = objects.scores >= threshold
    return Regions(
        objects.pred_masks[kept].cpu(),
        objects.pred_classes[kept].cpu(),
        objects.scores[kept].cpu(),
        objects.mask_index[kept].cpu(),
    )


def mask_regions(found: ClassifiedMasks, size: tuple[int, int]) -> Regions:
    """One region per mask, with its most probable class."""
    solid = binary_masks(found.masks, size).cpu()
    if len(solid) == 0:
        return _no_regions(size)
    scores, classes = found.probabilities.cpu().max(dim=1)
    return Regions(solid, classes, scores, torch.arange(len(solid)))


def _no_regions(size: Sequence[int]) -> Regions:
    none = torch.zeros(0, dtype=torch.int64)
    return Regions(torch.zeros(0, *size, dtype=torch.bool), none, torch.zeros(0), none)
