"""Classified masks of an image -> semantic maps, panoptic maps and instances.

:func:`image_results` computes what the settings ask for. The docstring of every output gives its
definition on the resized masks ``resized = masks.resized(size)`` [Q, H, W]. The functions compute
the same with less time and memory, see :mod:`maskclippp.masks.upsampling`: neither Q x H x W nor
K x H x W floats are held at a time (except for ``semantic_scores``, whose result they are).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskclippp.devices import copied_to
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.resampling import resample
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.upsampling import best_rows, compete, solid_parts
from maskclippp.records import ImageResult, Segment

Size = tuple[int, int]


@dataclass(frozen=True)
class ClassifiedMasks:
    """The masks of an image with their classes.

    Attributes:
        masks: Q masks, at any resolution.
        logits: [Q, K] or [Q, K + 1] with void last.
        num_classes: K.
    """

    masks: SoftMasks
    logits: Tensor
    num_classes: int

    @property
    def classes(self) -> Tensor:
        """int64 [Q]: the best class of every mask, ignoring void."""
        return self.logits[:, : self.num_classes].argmax(dim=-1)

    @property
    def probabilities(self) -> Tensor:
        """float32 [Q, K]: softmax over all columns including void, which is then dropped."""
        return self.logits.float().softmax(dim=-1)[:, : self.num_classes]


def image_results(
    found: ClassifiedMasks,
    size: Size,
    thing_classes: frozenset[int],
    settings: InferenceSettings,
) -> ImageResult:
    """The requested results of one image at ``size``, named as by ``MaskCLIPpp.forward``.

    They are computed in float32 even within autocast, because half precision cannot separate
    classes with nearly equal scores.
    """
    if settings.mask_acc:
        return {"mask_cls": found.classes}
    results: ImageResult = {}
    with torch.autocast(found.logits.device.type, enabled=False):
        if settings.semantic_on and settings.semantic_output == "scores":
            results["sem_seg"] = semantic_scores(found, size)
        elif settings.semantic_on:
            results["sem_seg_labels"] = semantic_labels(found, size)
        if settings.panoptic_on:
            results["panoptic_seg"] = panoptic_segmentation(found, size, thing_classes, settings)
        if settings.instance_on:
            # With panoptic data the classes include stuff, which has no instances.
            classes = thing_classes if settings.panoptic_on else None
            results["instances"] = instance_segmentation(found, size, classes, settings)
    return results


def semantic_scores(found: ClassifiedMasks, size: Size) -> Tensor:
    """float32 [K, H, W]: the sum over masks of class probability x mask.

    Definition::

        torch.einsum("qk,qhw->khw", found.probabilities, resized)
    """
    # Resizing is linear, so the sums are formed at the smaller of the two sizes.
    values, rows, columns = found.masks.reduced(size)
    scores = torch.einsum("qk,qhw->khw", found.probabilities, values.float())
    return resample(scores, rows, columns)


def semantic_labels(found: ClassifiedMasks, size: Size) -> Tensor:
    """int64 [H, W]: the class with the highest score at every pixel.

    Definition::

        semantic_scores(found, size).argmax(dim=0)
    """
    return best_rows(found.probabilities, found.masks, size)


def panoptic_segmentation(
    found: ClassifiedMasks,
    size: Size,
    thing_classes: frozenset[int],
    settings: InferenceSettings,
) -> tuple[Tensor, list[Segment]]:
    """Non-overlapping segments, as in Mask2Former.

    Definition, for masks whose best class is not void and whose score, the probability of this
    class, exceeds ``object_mask_threshold``::

        winner = (score[:, None, None] * resized).argmax(dim=0)
        for index in range(len(resized)):
            won, solid = winner == index, resized[index] >= 0.5
            if (won & solid).any() and won.sum() / solid.sum() >= overlap_threshold:
                ids[won & solid] = new_id  # or the id of an earlier segment of the same stuff class

    Returns:
        int32 id map [H, W], 0 for no segment, and the list of segments: ``id``, ``isthing``,
        ``category_id`` (contiguous).
    """
    ids, segments, _ = panoptic_segments(found, size, thing_classes, settings)
    return ids, segments


def panoptic_segments(
    found: ClassifiedMasks,
    size: Size,
    thing_classes: frozenset[int],
    settings: InferenceSettings,
) -> tuple[Tensor, list[Segment], Tensor]:
    """As :func:`panoptic_segmentation`, and the id of every mask int64 [Q], 0 for none."""
    scores, labels = found.logits.float().softmax(dim=-1).max(dim=-1)
    competing = (labels < found.num_classes) & (scores > settings.object_mask_threshold)
    index = competing.nonzero()[:, 0]
    masks, scores, labels = found.masks[index], scores[index], labels[index]
    num_masks = len(masks)
    id_of_mask = torch.zeros(len(competing), dtype=torch.int64, device=scores.device)
    if num_masks == 0:
        return torch.zeros(size, dtype=torch.int32, device=scores.device), [], id_of_mask
    result = compete(scores, masks, size)
    pairs = (result.winner * 2 + result.is_solid).flatten()
    pixels = torch.bincount(pairs, minlength=num_masks * 2).view(num_masks, 2)
    won, kept = pixels.sum(dim=1), pixels[:, 1]
    overlap = won / result.solid_area.clamp(min=1)
    valid = (kept > 0) & (overlap >= settings.overlap_threshold)
    valid_of_mask, label_of_mask = torch.stack([valid, labels]).tolist()  # one copy to the host
    ids, segments = _number_segments(valid_of_mask, label_of_mask, thing_classes)
    table = copied_to(torch.tensor(ids, dtype=torch.int32), scores.device)
    id_of_mask[index] = table.long()
    ids_of_winners = torch.where(result.is_solid, table[result.winner], 0)
    return ids_of_winners, segments, id_of_mask


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


def instance_segmentation(
    found: ClassifiedMasks,
    size: Size,
    classes: frozenset[int] | None,
    settings: InferenceSettings,
) -> Instances:
    """The ``max_instances`` best pairs (mask, class) of an image, by descending score.

    Pairs are chosen by class probability. Those of other classes than ``classes`` (None: all) are
    removed afterwards. Definition of one instance::

        mask = resized[index] > 0.5
        score = probability[index, class] * (resized[index] * mask).sum() / (mask.sum() + 1e-6)

    Returns:
        Instances with ``pred_masks`` bool [n, H, W], ``pred_classes`` int64 [n], ``scores`` [n]
        and ``pred_boxes`` (zeros unless ``instance_box_on``; x2 and y2 exclusive), and the number
        of the mask in ``found``, ``mask_index`` int64 [n].
    """
    probabilities = found.probabilities.flatten()
    top = probabilities.topk(min(settings.max_instances, len(probabilities)), sorted=True)
    scores = top.values
    mask_index, labels = top.indices // found.num_classes, top.indices % found.num_classes
    if classes is not None:
        wanted = torch.tensor(sorted(classes), dtype=labels.dtype)
        chosen = torch.isin(labels, copied_to(wanted, labels.device))
        kept = chosen.nonzero()[:, 0]
        mask_index, labels, scores = mask_index[kept], labels[kept], scores[kept]
    # A mask may be chosen for several classes; it is resized only once.
    used, position = torch.unique(mask_index, return_inverse=True)
    solid = solid_parts(found.masks[used], size)
    scores = scores * (solid.mass / (solid.area + 1e-6))[position]
    # By descending score; ties by class, so that the order does not depend on the device.
    order = labels.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    boxes = mask_boxes(solid.binary) if settings.instance_box_on else scores.new_zeros(len(used), 4)
    instances = Instances(size)
    instances.pred_masks = solid.binary[position[order]]
    instances.pred_boxes = Boxes(boxes[position[order]])
    instances.pred_classes = labels[order]
    instances.scores = scores[order]
    instances.mask_index = mask_index[order]
    return instances


def binary_masks(masks: SoftMasks, size: Size) -> Tensor:
    """Bool [Q, H, W]: the resized masks > 0.5."""
    return solid_parts(masks, size).binary


def mask_boxes(masks: Tensor) -> Tensor:
    """float32 [n, 4] boxes x1, y1, x2, y2 (exclusive) of bool masks [n, H, W]; empty: zeros."""
    # On a CPU the maximum of bytes is 20 times as fast as any() of bools.
    columns, rows = (masks.view(torch.uint8).amax(dim=axis).bool() for axis in (1, 2))
    edges = []
    for occupied in (columns, rows):
        length = occupied.shape[1]
        first = occupied.int().argmax(dim=1)
        last = length - occupied.flip(1).int().argmax(dim=1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * columns.any(dim=1, keepdim=True)
