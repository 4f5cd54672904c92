"""Masks and class logits -> semantic maps, panoptic maps, instances.

Q soft masks [Q, h, w] in [0, 1] at any resolution; a tensor of masks spans exactly the image.
Logits [Q, K] or [Q, K + 1] (void last), output size (H, W). What is asked about the resized masks
is answered without making them, see :mod:`maskclippp.masks.upsampling`: neither Q x H x W nor
K x H x W floats are held, and the host waits for the device a few times per image, not once per
class or mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskclippp.masks.resampling import resample
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.upsampling import best_rows, reduce_masks, solid_parts
from maskclippp.records import Segment


def mask_classes(logits: Tensor, num_classes: int) -> Tensor:
    """int64 [Q]: the best class of every mask, void left aside."""
    return logits[:, :num_classes].argmax(dim=-1)


def class_probabilities(logits: Tensor, num_classes: int) -> Tensor:
    """float32 [Q, K]: softmax over all columns, void included, which is then dropped."""
    return logits.float().softmax(dim=-1)[:, :num_classes]


def semantic_scores(
    masks: SoftMasks, logits: Tensor, num_classes: int, size: tuple[int, int]
) -> Tensor:
    """float32 [K, H, W]: sum over masks of class probability x mask."""
    probabilities = class_probabilities(logits, num_classes)
    # Resizing is linear: the sums are formed at the smaller of the two sizes.
    values, rows, columns = reduce_masks(masks, size)
    scores = torch.einsum("qk,qhw->khw", probabilities, values.float())
    return resample(scores, rows, columns)


def semantic_labels(
    masks: SoftMasks, logits: Tensor, num_classes: int, size: tuple[int, int]
) -> Tensor:
    """int64 [H, W]: the class with the greatest score at every pixel."""
    probabilities = class_probabilities(logits, num_classes)
    return best_rows(lambda values: values @ probabilities, num_classes, masks, size)


@dataclass(frozen=True)
class PanopticSettings:
    """Thresholds of :func:`panoptic_segmentation`, and which classes are things."""

    object_mask_threshold: float
    overlap_threshold: float
    thing_classes: frozenset[int]


def panoptic_segmentation(
    masks: SoftMasks,
    logits: Tensor,
    num_classes: int,
    size: tuple[int, int],
    settings: PanopticSettings,
) -> tuple[Tensor, list[Segment]]:
    """Non-overlapping segments, as in Mask2Former.

    Masks whose best class is not void and whose probability exceeds ``object_mask_threshold``
    compete for pixels with probability x mask. A mask is dropped when (pixels won) / (pixels with
    mask >= 0.5) is below ``overlap_threshold``. Equal stuff classes are merged.

    Returns:
        int32 id map [H, W], 0 for no segment, and the list of segments: ``id``, ``isthing``,
        ``category_id`` (contiguous).
    """
    scores, labels = logits.float().softmax(dim=-1).max(dim=-1)
    competing = (labels < num_classes) & (scores > settings.object_mask_threshold)
    masks, scores, labels = masks[competing], scores[competing], labels[competing]
    num_masks = len(masks)
    if num_masks == 0:
        return torch.zeros(size, dtype=torch.int32, device=logits.device), []
    winner = best_rows(lambda values: values * scores, num_masks, masks, size)
    won = torch.bincount(winner.flatten(), minlength=num_masks)
    solid = solid_parts(masks, size, lambda values: values >= 0.5)
    winner_is_solid = solid.binary.gather(0, winner[None])[0]
    winner = torch.where(winner_is_solid, winner, num_masks)
    kept = torch.bincount(winner.flatten(), minlength=num_masks + 1)[:num_masks]
    overlap = won / solid.area.clamp(min=1)
    valid = (kept > 0) & (overlap >= settings.overlap_threshold)
    id_of_mask, segments = _number_segments(valid.tolist(), labels.tolist(), settings.thing_classes)
    table = torch.tensor([*id_of_mask, 0], dtype=torch.int32, device=logits.device)
    return table[winner], segments


def _number_segments(
    valid: Sequence[bool], labels: Sequence[int], thing_classes: frozenset[int]
) -> tuple[list[int], list[Segment]]:
    """Segment id of every mask (0: dropped), in mask order; equal stuff classes share one."""
    ids = [0] * len(valid)
    segments: list[Segment] = []
    stuff_ids: dict[int, int] = {}
    for index, label in enumerate(labels):
        if not valid[index]:
            continue
        is_thing = label in thing_classes
        if not is_thing and label in stuff_ids:
            ids[index] = stuff_ids[label]
            continue
        ids[index] = len(segments) + 1
        segments.append({"id": ids[index], "isthing": is_thing, "category_id": label})
        if not is_thing:
            stuff_ids[label] = ids[index]
    return ids, segments


@dataclass(frozen=True)
class InstanceSettings:
    """How :func:`instance_segmentation` chooses; ``classes``: bool [K] to keep, None for all."""

    max_instances: int
    with_boxes: bool = False
    classes: Tensor | None = None


def instance_segmentation(
    masks: SoftMasks,
    logits: Tensor,
    num_classes: int,
    size: tuple[int, int],
    settings: InstanceSettings,
) -> Instances:
    """The best (mask, class) pairs of an image, by descending score.

    The score is the class probability times the mean mask value inside the mask (> 0.5). Classes
    outside ``settings.classes`` are removed after the best ``max_instances`` pairs were chosen.

    Returns:
        Instances with ``pred_masks`` bool [n, H, W], ``pred_classes`` int64 [n], ``scores`` [n]
        and ``pred_boxes`` (zeros unless ``with_boxes``; x2 and y2 exclusive).
    """
    probabilities = class_probabilities(logits, num_classes).flatten()
    top = probabilities.topk(min(settings.max_instances, len(probabilities)), sorted=True)
    mask_index, classes = top.indices // num_classes, top.indices % num_classes
    class_scores = top.values
    if settings.classes is not None:
        wanted = settings.classes.to(classes.device)[classes]
        mask_index, classes = mask_index[wanted], classes[wanted]
        class_scores = class_scores[wanted]
    # A mask may be chosen for several classes: it is resized once.
    used, position = mask_index.unique(return_inverse=True)
    solid = solid_parts(masks[used], size, lambda values: values > 0.5)
    scores = class_scores * (solid.mass / (solid.area + 1e-6))[position]
    # Descending score; equal ones by class, so that the order is the same everywhere.
    order = classes.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    boxes = mask_boxes(solid.binary) if settings.with_boxes else torch.zeros(len(used), 4)
    instances = Instances(size)
    instances.pred_masks = solid.binary[position[order]]
    instances.pred_boxes = Boxes(boxes.to(logits.device)[position[order]])
    instances.pred_classes = classes[order]
    instances.scores = scores[order]
    return instances


def binary_masks(masks: SoftMasks, size: tuple[int, int]) -> Tensor:
    """bool [Q, H, W]: masks > 0.5 at the output size."""
    return solid_parts(masks, size, lambda values: values > 0.5).binary


def mask_boxes(masks: Tensor) -> Tensor:
    """float32 [n, 4] boxes x1, y1, x2, y2 (exclusive) of bool masks [n, H, W]; empty: zeros."""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    edges = []
    for occupied in (columns, rows):
        length = occupied.shape[1]
        first = occupied.int().argmax(dim=1)
        last = length - occupied.flip(1).int().argmax(dim=1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * columns.any(dim=1, keepdim=True)
