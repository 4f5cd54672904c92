"""Images and masks of different sizes -> one padded batch.

Images are normalized, resized (bilinear, ``align_corners=False``, no antialiasing), and padded with
0 at the right and bottom. Masks are resized and padded like their image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.devices import copied_to
from maskclippp.errors import InputError, check_choice
from maskclippp.masks.resampling import Taps, resample
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record

Result = TypeVar("Result")

RESIZE_TYPES = ("none", "short", "square", "rel")
DOWNSAMPLE_METHODS = ("bilinear", "nearest", "bicubic", "avg", "max")


@dataclass(frozen=True)
class Resize:
    """How images are resized; ``size`` in pixels is for short and square, ``scale`` for rel."""

    kind: str = "none"
    size: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_choice("RESIZE_TYPE:", self.kind, RESIZE_TYPES)
        if self.kind in ("short", "square") and self.size < 1:
            raise InputError(f"IMAGE_SIZE: expected a positive number of pixels, found {self.size}")
        if self.kind == "rel" and self.scale <= 0:
            raise InputError(f"IMAGE_SCALE: expected a positive number, found {self.scale}")

    def __call__(self, images: Tensor) -> Tensor:
        """Resize floats [C, H, W] to [C, H', W']."""
        if self.kind == "none":
            return images
        if self.kind == "rel":
            # Sample positions follow the given factor, not the ratio of the rounded sizes.
            return F.interpolate(images[None], scale_factor=self.scale, mode="bilinear")[0]
        return resize_bilinear(images, self._output_size(*images.shape[-2:]))

    def _output_size(self, height: int, width: int) -> tuple[int, int]:
        if self.kind == "square":
            return self.size, self.size
        # The larger of both is that of the longer side; no branch, for exported graphs.
        return (
            torch.sym_max(self.size, height * self.size // width),
            torch.sym_max(self.size, width * self.size // height),
        )


@dataclass(frozen=True)
class InputFormat:
    """The input format of an encoder: channel statistics (0..255 scale), resizing and padding."""

    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    size_divisibility: int = 0
    train_resize: Resize = Resize()
    test_resize: Resize = Resize()


@dataclass(frozen=True)
class PaddedBatch:
    """B images in one tensor, and their N masks.

    Attributes:
        images: normalized [B, 3, H, W], 0 in the padding.
        image_sizes: height and width of every image without its padding.
        masks: the masks of every image, at their own resolution.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    masks: list[SoftMasks]

    @property
    def masks_per_image(self) -> list[int]:
        return [len(masks) for masks in self.masks]

    @property
    def image_of_mask(self) -> Tensor:
        """int64 [N]: the index of the image of every mask."""
        counts = torch.tensor(self.masks_per_image, device="cpu")
        return copied_to(torch.repeat_interleave(counts), self.images.device)

    def padded_masks(self) -> Tensor:
        """Float [N, H, W]: all masks at the padded size, 0 in the padding."""
        height, width = self.images.shape[-2:]
        pairs = zip(self.masks, self.image_sizes, strict=True)
        return torch.cat([_pad(masks.resized(size), height, width) for masks, size in pairs])

    def downsampled_masks(self, size: tuple[int, int], method: str = "bilinear") -> Tensor:
        """Float [N, h, w]: the padded masks resized to the feature grid ``size``."""
        if method != "bilinear":
            return downsample_masks(self.padded_masks(), size, method)
        height, width = self.images.shape[-2:]
        shrink_rows, shrink_columns = Taps.bilinear(height, size[0]), Taps.bilinear(width, size[1])
        resized = []
        for masks, image_size in zip(self.masks, self.image_sizes, strict=True):
            rows, columns = masks.taps(image_size)
            # Sources beyond the outputs of the first map are read as 0, like the padding.
            taps = shrink_rows.after(rows), shrink_columns.after(columns)
            resized.append(resample(masks.values, *taps))
        return torch.cat(resized)


def pad_batch(
    images: Sequence[Tensor],
    masks: Sequence[SoftMasks] | None,
    input_format: InputFormat,
    resize: Resize,
    device: torch.device,
) -> PaddedBatch:
    """Normalize, resize and pad ``images`` ([3, h, w], values 0..255) and their masks.

    Args:
        images: one tensor per image; any dtype.
        masks: the masks of every image, at any resolution; None: no masks.
        input_format: channel statistics and divisibility of the padded size.
        resize: how every image is resized.
        device: the device of the batch. Integer and boolean tensors are copied as they are.

    Raises:
        InputError: an image is not [3, h, w], or masks are not [Q, h, w].
    """
    mean = _per_channel(tuple(input_format.pixel_mean), device)
    std = _per_channel(tuple(input_format.pixel_std), device)
    if masks is None:
        masks = [SoftMasks(torch.zeros(0, 1, 1, dtype=torch.bool)) for _ in images]
    resized_images: list[Tensor] = []
    for index, (image, image_masks) in enumerate(zip(images, masks, strict=True)):
        _check_shapes(index, image, image_masks.values)
        image = copied_to(image, device).float()
        resized_images.append(resize((image - mean) / std))
    image_sizes = [(image.shape[-2], image.shape[-1]) for image in resized_images]
    height, width = padded_size(image_sizes, input_format.size_divisibility)
    padded = torch.stack([_pad(image, height, width) for image in resized_images])
    return PaddedBatch(padded, image_sizes, [image_masks.to(device) for image_masks in masks])


def padded_size(sizes: Sequence[tuple[int, int]], divisibility: int) -> tuple[int, int]:
    """The largest height and width, each rounded up to a multiple of ``divisibility`` (if > 1)."""
    divisor = max(divisibility, 1)
    height, width = (max(side) for side in zip(*sizes, strict=True))
    return (height + divisor - 1) // divisor * divisor, (width + divisor - 1) // divisor * divisor


def call_by_size(
    function: Callable[[Sequence[Record]], Sequence[Result]], records: Sequence[Record]
) -> list[Result]:
    """Call a function of a batch once per image size -> its results, in the order of ``records``.

    Images of one size do not add to each other's padding.
    """
    indices_of_size: dict[torch.Size, list[int]] = {}
    for index, record in enumerate(records):
        indices_of_size.setdefault(record["image"].shape, []).append(index)
    results: dict[int, Result] = {}
    for indices in indices_of_size.values():
        found = function([records[index] for index in indices])
        results.update(zip(indices, found, strict=True))
    return [results[index] for index in range(len(records))]


def resize_bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize floats [N, H, W] (N may be 0) to [N, h, w]: half-pixel centers, no antialiasing."""
    if maps.shape[-2:] == size:
        return maps
    if maps.shape[0] == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def downsample_masks(masks: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Resize soft masks float [N, H, W] (N may be 0) to [N, h, w] by a named method.

    ``avg`` and ``max`` are adaptive pooling; bicubic values are not clamped to [0, 1].
    """
    check_choice("DOWNSAMPLE_METHOD:", method, DOWNSAMPLE_METHODS)
    if masks.shape[0] == 0:
        return masks.new_zeros(0, *size)
    if method == "bilinear":
        return resize_bilinear(masks, size)
    if method == "avg":
        return F.adaptive_avg_pool2d(masks, size)
    if method == "max":
        return F.adaptive_max_pool2d(masks, size)
    align_corners = False if method == "bicubic" else None
    return F.interpolate(masks[None], size=size, mode=method, align_corners=align_corners)[0]


def pad_ragged(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows [N, ...] of B images with ``counts`` rows each -> [B, max(counts), ...], 0-padded."""
    if len(counts) == 1:
        return rows[None]
    return torch.nn.utils.rnn.pad_sequence(list(torch.split(rows, list(counts))), batch_first=True)


def unpad_ragged(padded: Tensor, counts: Sequence[int]) -> Tensor:
    """The inverse of :func:`pad_ragged`: [B, Q, ...] -> [N, ...]."""
    if len(counts) == 1:
        return padded[0]
    return torch.cat([padded[index, :count] for index, count in enumerate(counts)])


# Kept, because a copy from the host would make every batch wait for the device.
@lru_cache
@torch.inference_mode(mode=False)  # training may need it after an evaluation
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[3, 1, 1]."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def _pad(maps: Tensor, height: int, width: int) -> Tensor:
    return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))


def _check_shapes(index: int, image: Tensor, masks: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise InputError(f"image {index}: expected a [3, H, W] tensor, found {list(image.shape)}")
    if masks.ndim != 3 or 0 in masks.shape[-2:]:
        raise InputError(f"image {index}: expected [Q, h, w] masks, found {list(masks.shape)}")
