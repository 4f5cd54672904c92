"""Segment Anything: class-agnostic masks of whatever lies under a grid of points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from maskclippp.errors import InputError
from maskclippp.generators.base import ImageMasks
from maskclippp.generators.hub_models import (
    HubGenerator,
    check_hub_model,
    load_image_processor,
    load_model,
)
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.masks.suppression import suppress
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY


@dataclass(frozen=True)
class GridOptions:
    """How masks are proposed and chosen; names and defaults as in SAM's mask generator.

    Attributes:
        points_per_side: of the grid.
        points_per_batch: points whose masks are predicted at once.
        min_iou: smallest quality that the model predicts for a mask.
        min_stability: smallest IoU of the masks with logits above +offset and -offset.
        stability_offset: this offset.
        max_overlap: largest IoU of two masks; see :func:`suppress`.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    min_iou: float = 0.88
    min_stability: float = 0.95
    stability_offset: float = 1.0
    max_overlap: float = 0.7

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"SEGMENTOR.SAM.{name.upper()}: expected >= 1, found {getattr(self, name)}"
                )


@SEGMENTOR_REGISTRY.register()
class SamSegmentor(HubGenerator):
    """SAM (arXiv 2304.02643), SAM-HQ or SAM 2, without crops of the image.

    Every point of a grid proposes three masks: whole, part, part of a part. Masks are filtered by
    predicted quality and by stability, at their own resolution, and those that overlap a better one
    are dropped. They are not classified.

    Args:
        model: of ``AutoModelForMaskGeneration``.
        processor: its ``AutoImageProcessor``.
        options: see :class:`GridOptions`.
    """

    hub_model_types = ("sam", "sam_hq", "sam2", "sam2_video")

    @configurable
    def __init__(
        self, *, model: nn.Module, processor: Any, options: GridOptions | None = None
    ) -> None:
        super().__init__(model=model, processor=processor)
        self.options = options or GridOptions()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config; loads the weights."""
        from transformers import AutoModelForMaskGeneration

        node = cfg.MODEL.MASKCLIPPP.SEGMENTOR
        folder = check_hub_model(node, cls.hub_model_types)
        return {
            "options": GridOptions(**{key.lower(): value for key, value in node.SAM.items()}),
            "model": load_model(AutoModelForMaskGeneration, folder),
            "processor": load_image_processor(folder),
        }

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`."""
        return [ImageMasks(self._masks(record["image"])) for record in records]

    def _masks(self, image: Tensor) -> SoftMasks:
        inputs = self._inputs([image])
        pixels = inputs["pixel_values"]
        padded = (pixels.shape[-2], pixels.shape[-1])
        # SAM pads, SAM 2 resizes to a square.
        height, width = map(int, inputs.get("reshaped_input_sizes", [padded])[0])
        embeddings = _image_embeddings(self.model, pixels)
        points = _grid(self.options.points_per_side).to(pixels) * pixels.new_tensor([width, height])
        found = [
            self._propose(embeddings, batch, (height / padded[0], width / padded[1]))
            for batch in points.split(self.options.points_per_batch)
        ]
        logits, inside, scores = map(torch.cat, zip(*found, strict=True))
        kept = suppress(inside, scores, self.options.max_overlap)
        frame = None if (height, width) == padded else Frame(padded, (height, width))
        return SoftMasks(logits[kept].sigmoid(), frame)

    def _propose(
        self, embeddings: dict[str, Any], points: Tensor, share: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks at points [P, 2] (x, y) that pass the filters.

        Returns:
            logits [n, h, w]; bool [n, h', w'], the masks without padding; scores [n].
        """
        options = self.options
        outputs = self.model(input_points=points[None, :, None], **embeddings)
        logits, scores = (
            outputs.pred_masks[0].flatten(0, 1).float(),
            outputs.iou_scores[0].flatten(),
        )
        rows, columns = (
            round(side * part) for side, part in zip(logits.shape[1:], share, strict=True)
        )
        image = logits[:, :rows, :columns]
        core = (image > options.stability_offset).sum(dim=(1, 2))
        hull = (image > -options.stability_offset).sum(dim=(1, 2))
        inside = image > 0
        good = (core >= options.min_stability * hull) & (scores >= options.min_iou)
        good &= inside.flatten(1).any(dim=1)
        return logits[good], inside[good], scores[good].float()


def _image_embeddings(model: Any, pixels: Tensor) -> dict[str, Any]:
    """What the mask decoder takes from an image, by the names of the model's arguments."""
    found = model.get_image_embeddings(pixels)
    if isinstance(found, tuple):  # SAM-HQ
        return {"image_embeddings": found[0], "intermediate_embeddings": found[1]}
    return {"image_embeddings": found}


def _grid(side: int) -> Tensor:
    """[side * side, 2]: x, y in 0..1, the centers of a grid's cells."""
    centers = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(centers, centers).flip(1)
