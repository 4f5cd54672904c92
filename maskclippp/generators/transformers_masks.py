"""Outputs of "universal segmentation" models -> masks, as transformers' post-processing does it.

Where it takes the sigmoid differs by architecture: at the resolution of the mask logits, at 384 x
384 pixels, or at that of the result. It matters, because resizing and sigmoid do not commute.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from maskclippp.masks.batching import resize_bilinear
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.records import Record, output_size

_SQUARES = ("eomt", "eomt_dinov3")
MODEL_TYPES = ("detr", *_SQUARES, "mask2former", "maskformer", "oneformer")
_MASK2FORMER_SIZE = (384, 384)
# More are not held at the size of the result: a gigabyte, or 200 masks of 1.3 megapixels.
_MOST_VALUES = 2**28

Size = tuple[int, int]
Found = tuple[SoftMasks, Tensor]


class MaskReader(ABC):
    """What one kind of architecture takes, and what its outputs mean.

    Attributes:
        options: for the image processor.
    """

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options = options or {}

    @abstractmethod
    def model_inputs(self, inputs: Any) -> dict[str, Tensor]:
        """Arguments of the model, from what the image processor returns for N images."""

    @abstractmethod
    def read(self, outputs: Any, inputs: Any, records: Sequence[Record]) -> list[Found]:
        """Masks [Q, h, w] and class logits [Q, K + 1] of each image.

        Args:
            outputs: of the model.
            inputs: what the image processor returned.
            records: N images of one size, with the sizes of their results.
        """


def mask_reader(config: Any, processor: Any) -> MaskReader:
    """The reader for a model's config and its image processor."""
    return SquareImages(processor) if config.model_type in _SQUARES else WholeImages(config)


class WholeImages(MaskReader):
    """Mask2Former, MaskFormer, OneFormer, DETR: images of any aspect ratio, padded on demand."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._size = _MASK2FORMER_SIZE if config.model_type == "mask2former" else None
        self._task: Tensor | None = None
        if config.model_type == "oneformer":
            # CLIP's tokens; their numbers are what the network of the task takes.
            self._task = open_clip.tokenize("the task is panoptic", config.task_seq_len)

    @override
    def model_inputs(self, inputs: Any) -> dict[str, Tensor]:
        pixels: Tensor = inputs["pixel_values"]
        found = {"pixel_values": pixels, "pixel_mask": inputs["pixel_mask"]}
        if self._task is not None:
            found["task_inputs"] = self._task.to(pixels.device).expand(len(pixels), -1)
        return found

    @override
    def read(self, outputs: Any, inputs: Any, records: Sequence[Record]) -> list[Found]:
        return [
            (self._masks(logits, seen), classes)
            for logits, classes, seen in zip(*_logits(outputs), inputs["pixel_mask"], strict=True)
        ]

    def _masks(self, logits: Tensor, seen: Tensor) -> SoftMasks:
        if self._size is not None:
            logits = resize_bilinear(logits, self._size)
        padded = (seen.shape[0], seen.shape[1])
        image = (int(seen.any(dim=1).sum()), int(seen.any(dim=0).sum()))
        return SoftMasks(logits.sigmoid(), None if image == padded else Frame(padded, image))


class SquareImages(MaskReader):
    """EoMT: squares, which are whole images with padding, or overlapping windows of an image.

    The processor's setting decides: published panoptic and instance models pad, semantic models cut
    windows along the longer side. The masks of all windows are masks of the image.
    """

    def __init__(self, processor: Any) -> None:
        super().__init__({} if processor.do_split_image else {"do_pad": True})
        self._short: int = processor.size["shortest_edge"]
        self._long: int | None = processor.size["longest_edge"]

    @override
    def model_inputs(self, inputs: Any) -> dict[str, Tensor]:
        return {"pixel_values": inputs["pixel_values"]}

    @override
    def read(self, outputs: Any, inputs: Any, records: Sequence[Record]) -> list[Found]:
        masks, classes = _logits(outputs)
        masks = F.interpolate(masks, (self._short, self._long or self._short), mode="bilinear")
        image_size = self._resized(records[0]["image"])
        if not inputs.get("patch_offsets"):
            return [
                (_padded(logits, image_size, output_size(record)), scores)
                for logits, scores, record in zip(masks, classes, records, strict=True)
            ]
        offsets = torch.stack(list(inputs["patch_offsets"])).cpu()
        rows = [offsets[:, 0] == index for index in range(len(records))]
        return [
            (_merged(masks[row], offsets[row, 1:], image_size), classes[row].flatten(0, 1))
            for row in rows
        ]

    def _resized(self, image: Tensor) -> Size:
        from transformers.image_transforms import get_size_with_aspect_ratio

        size = (image.shape[-2], image.shape[-1])
        height, width = get_size_with_aspect_ratio(size, self._short, self._long)
        return height, width


def _padded(logits: Tensor, image_size: Size, size: Size) -> SoftMasks:
    """Masks [Q, H, W] at an output size, of logits [Q, h, w] whose upper left part is the image."""
    image = logits[:, : image_size[0], : image_size[1]]
    return SoftMasks(resize_bilinear(image, _affordable(len(logits), size)).sigmoid())


def _merged(logits: Tensor, ranges: Tensor, image_size: Size) -> SoftMasks:
    """Masks [W * Q, h, w] of W windows, ``ranges`` along the longer side; 0 outside of them."""
    height, width = image_size
    values = logits.new_zeros(*logits.shape[:2], height, width)
    for window, found, (start, end) in zip(values, logits.sigmoid(), ranges.tolist(), strict=True):
        place = window[:, start:end] if height > width else window[:, :, start:end]
        place.copy_(found)
    return SoftMasks(values.flatten(0, 1))


def _logits(outputs: Any) -> tuple[Tensor, Tensor]:
    """float32 mask logits [N, Q, h, w] and class logits [N, Q, K + 1], void last."""
    if hasattr(outputs, "pred_masks"):
        return outputs.pred_masks.float(), outputs.logits.float()
    return outputs.masks_queries_logits.float(), outputs.class_queries_logits.float()


def _affordable(num_masks: int, size: Size) -> Size:
    """``size``, or the largest of its shape at which ``num_masks`` masks can be held."""
    scale = min(1.0, (_MOST_VALUES / (max(num_masks, 1) * size[0] * size[1])) ** 0.5)
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
