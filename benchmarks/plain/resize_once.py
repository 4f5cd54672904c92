"""Post-processing by resizing the masks once: the strongest formulation without more than that.

All resized masks are held at a time. From them follow semantic labels by one matrix product,
panoptic segments by one argmax, and instances by thresholds, without loops.
"""

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.inference.settings import InferenceSettings

Size = tuple[int, int]


class ResizedOnce:
    """The results of masks [Q, h, w] with logits [Q, K + 1], void last, at a size."""

    def __init__(
        self, masks: Tensor, logits: Tensor, size: Size, settings: InferenceSettings
    ) -> None:
        self.masks, self.size, self.settings = masks, size, settings
        self.chances = logits.softmax(dim=1)
        self.num_classes = logits.shape[1] - 1

    @cached_property
    def resized(self) -> Tensor:
        """[Q, H, W]."""
        return F.interpolate(self.masks[None].float(), size=self.size, mode="bilinear")[0]

    def semantic_labels(self) -> Tensor:
        """[H, W]."""
        weights = self.chances[:, : self.num_classes]
        return (weights.t() @ self.resized.flatten(1)).argmax(dim=0).view(self.size)

    def panoptic_segmentation(self, things: frozenset[int]) -> tuple[Tensor, list[dict[str, Any]]]:
        """Id map [H, W] and segments."""
        scores, labels = self.chances.max(dim=1)
        kept = (labels < self.num_classes) & (scores > self.settings.object_mask_threshold)
        ids = torch.zeros(self.size, dtype=torch.int32, device=scores.device)
        segments: list[dict[str, Any]] = []
        if not kept.any():
            return ids, segments
        masks, scores, labels = self.resized[kept], scores[kept], labels[kept]
        winner = (scores[:, None, None] * masks).argmax(dim=0)
        solid = masks >= 0.5
        won_and_solid = solid.gather(0, winner[None])[0]
        won = torch.bincount(winner.flatten(), minlength=len(masks))
        visible = torch.bincount(winner[won_and_solid], minlength=len(masks))
        share = won / solid.sum(dim=(1, 2)).clamp(min=1)
        valid = (visible > 0) & (share >= self.settings.overlap_threshold)
        table, stuff = [0] * len(masks), dict[int, int]()
        for index in valid.nonzero()[:, 0].tolist():
            label = int(labels[index])
            table[index] = stuff.get(label, len(segments) + 1)
            if label not in stuff:
                segment = {"id": table[index], "isthing": label in things, "category_id": label}
                segments.append(segment)
            if label not in things:
                stuff[label] = table[index]
        numbers = torch.tensor(table, dtype=torch.int32, device=scores.device)
        return torch.where(won_and_solid, numbers[winner], 0), segments

    def instance_segmentation(
        self, classes: frozenset[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks [n, H, W], classes and scores [n] of the best pairs, by descending score."""
        chances = self.chances[:, : self.num_classes].flatten()
        top = chances.topk(min(self.settings.max_instances, len(chances)))
        index, labels, scores = top.indices // self.num_classes, top.indices, top.values
        labels = labels % self.num_classes
        if classes is not None:
            kept = torch.isin(labels, torch.tensor(sorted(classes), device=labels.device))
            index, labels, scores = index[kept], labels[kept], scores[kept]
        masks = self.resized[index]
        solid = masks > 0.5
        mass = (masks * solid).sum(dim=(1, 2))
        scores = scores * mass / (solid.sum(dim=(1, 2)) + 1e-6)
        order = scores.argsort(descending=True)
        return solid[order], labels[order], scores[order]
