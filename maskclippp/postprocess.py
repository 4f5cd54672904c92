"""Masks and class logits -> semantic maps, panoptic maps, instances.

Q soft masks [Q, h, w] in [0, 1] at any resolution, logits [Q, K] or [Q, K + 1] (void last), output
size (H, W). Masks are resized to the output size in strips of rows, so that neither Q x H x W nor
K x H x W floats are ever held, and everything on the device is done by segment operations: the
host waits for the device once per image, not once per class or mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

# Floats per strip: 64 MiB.
_STRIP_BUDGET = 16 * 2**20


def mask_classes(logits: Tensor, num_classes: int) -> Tensor:
    """int64 [Q]: the best class of every mask, void left aside."""
    return logits[:, :num_classes].argmax(dim=-1)


def class_probabilities(logits: Tensor, num_classes: int) -> Tensor:
    """float32 [Q, K]: softmax over all columns, void included, which is then dropped."""
    return logits.float().softmax(dim=-1)[:, :num_classes]


def semantic_scores(
    masks: Tensor, logits: Tensor, num_classes: int, size: tuple[int, int]
) -> Tensor:
    """float32 [K, H, W]: sum over masks of class probability x mask."""
    probabilities = class_probabilities(logits, num_classes)
    strips = [
        torch.einsum("qk,qhw->khw", probabilities, strip)
        for _, strip in resized_strips(masks, size, num_classes)
    ]
    return torch.cat(strips, dim=1)


def semantic_labels(
    masks: Tensor, logits: Tensor, num_classes: int, size: tuple[int, int]
) -> Tensor:
    """int64 [H, W]: the class with the greatest score at every pixel."""
    probabilities = class_probabilities(logits, num_classes).t().contiguous()
    strips = []
    for _, strip in resized_strips(masks, size, num_classes):
        scores = probabilities @ strip.flatten(1)
        strips.append(scores.argmax(dim=0).view(strip.shape[1:]))
    return torch.cat(strips)


@dataclass(frozen=True)
class PanopticSettings:
    """Thresholds of :func:`panoptic_segmentation`, and which classes are things."""

    object_mask_threshold: float
    overlap_threshold: float
    thing_classes: frozenset[int]


def panoptic_segmentation(
    masks: Tensor,
    logits: Tensor,
    num_classes: int,
    size: tuple[int, int],
    settings: PanopticSettings,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Non-overlapping segments, as in Mask2Former.

    Masks whose best class is not void and whose probability exceeds ``object_mask_threshold``
    compete for pixels with probability x mask. A mask is dropped when (pixels won) / (pixels with
    mask >= 0.5) is below ``overlap_threshold``. Equal stuff classes are merged.

    Returns:
        int32 id map [H, W], 0 for no segment, and the list of segments: ``id``, ``isthing``,
        ``category_id`` (contiguous).
    """
    scores, labels = logits.float().softmax(dim=-1).max(dim=-1)
    candidates = (labels < num_classes) & (scores > settings.object_mask_threshold)
    # Others can win nothing; a negative score keeps them below every candidate.
    scores = torch.where(candidates, scores, -1.0)
    num_masks = len(masks)
    won, covered, kept = scores.new_zeros(3, num_masks + 1).long()
    winners = []
    for _, strip in resized_strips(masks, size):
        if num_masks == 0:
            break
        value, winner = (scores[:, None, None] * strip).max(dim=0)
        winner = torch.where(value >= 0, winner, num_masks)
        solid = strip >= 0.5
        inside = solid.gather(0, winner.clamp(max=num_masks - 1)[None])[0]
        won += torch.bincount(winner.flatten(), minlength=num_masks + 1)
        covered[:num_masks] += solid.sum(dim=(1, 2))
        winner = torch.where(inside, winner, num_masks)
        kept += torch.bincount(winner.flatten(), minlength=num_masks + 1)
        winners.append(winner)
    if num_masks == 0:
        return torch.zeros(size, dtype=torch.int32, device=masks.device), []
    overlap = won / covered.clamp(min=1)
    valid = (won > 0) & (covered > 0) & (kept > 0) & (overlap >= settings.overlap_threshold)
    valid[:num_masks] &= candidates
    valid[num_masks] = False
    id_of_mask, segments = _number_segments(valid.tolist(), labels.tolist(), settings.thing_classes)
    table = torch.tensor(id_of_mask, dtype=torch.int32, device=masks.device)
    return table[torch.cat(winners)], segments


def _number_segments(
    valid: Sequence[bool], labels: Sequence[int], thing_classes: frozenset[int]
) -> tuple[list[int], list[dict[str, Any]]]:
    """Segment id of every mask (0: dropped), in mask order; equal stuff classes share one."""
    ids = [0] * len(valid)
    segments: list[dict[str, Any]] = []
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
    masks: Tensor,
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
    inside = masks.new_zeros(len(used), dtype=torch.float32)
    area = masks.new_zeros(len(used), dtype=torch.float32)
    binary = torch.empty((len(used), *size), dtype=torch.bool, device=masks.device)
    for rows, strip in resized_strips(masks[used], size):
        solid = strip > 0.5
        binary[:, rows] = solid
        inside += (strip * solid).sum(dim=(1, 2))
        area += solid.sum(dim=(1, 2))
    scores = class_scores * (inside / (area + 1e-6))[position]
    # Descending score; equal ones by class, so that the order is the same everywhere.
    order = classes.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    boxes = mask_boxes(binary) if settings.with_boxes else torch.zeros(len(used), 4)
    instances = Instances(size)
    instances.pred_masks = binary[position[order]]
    instances.pred_boxes = Boxes(boxes.to(masks.device)[position[order]])
    instances.pred_classes = classes[order]
    instances.scores = scores[order]
    return instances


def binary_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """bool [Q, H, W]: masks > 0.5 at the output size."""
    return torch.cat([strip > 0.5 for _, strip in resized_strips(masks, size)], dim=1)


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


def resized_strips(
    masks: Tensor, size: tuple[int, int], floats_per_pixel: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """Resize masks [Q, h, w] to ``size`` (H, W), a strip of rows at a time.

    Bilinear resizing is separable: rows are mixed first, for the strip's rows alone, then columns
    are interpolated. The strips together equal ``resize_bilinear(masks, size)``.

    Args:
        masks: [Q, h, w]; bool or float.
        size: output height and width.
        floats_per_pixel: what the caller holds per pixel of a strip besides the Q masks.

    Yields:
        The rows, and float32 [Q, rows, W].
    """
    height, width = size
    per_row = (len(masks) + floats_per_pixel) * width
    rows_per_strip = max(1, min(height, _STRIP_BUDGET // max(per_row, 1)))
    if masks.is_floating_point():
        masks = masks.float()
    scale = masks.shape[-2] / height
    for start in range(0, height, rows_per_strip):
        rows = slice(start, min(start + rows_per_strip, height))
        strip = masks[:, rows] if scale == 1 else _mix_rows(masks, rows, scale)
        strip = strip.float()
        if strip.shape[-1] != width:
            target = (strip.shape[-2], width)
            strip = (
                F.interpolate(strip[None], size=target, mode="bilinear", align_corners=False)[0]
                if len(strip)
                else strip.new_zeros(0, *target)
            )
        yield rows, strip


def _mix_rows(masks: Tensor, rows: slice, scale: float) -> Tensor:
    """Linear interpolation between the two input rows next to each output row centre."""
    centre = (torch.arange(rows.start, rows.stop, device=masks.device) + 0.5) * scale - 0.5
    centre = centre.clamp(min=0)
    low = centre.long()
    fraction = (centre - low)[:, None]
    high = (low + 1).clamp(max=masks.shape[-2] - 1)
    return torch.lerp(masks[:, low].float(), masks[:, high].float(), fraction)
