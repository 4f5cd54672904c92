"""Ragged images and masks <-> one padded batch.

Order of operations: normalize, resize (bilinear, not corner-aligned, no antialiasing), pad with 0
at the right and bottom. Masks are resized and padded in step with their image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.masks.soft_masks import SoftMasks, apply_matrices, bilinear_matrix

RESIZE_TYPES = ("none", "short", "square", "rel")
DOWNSAMPLE_METHODS = ("bilinear", "nearest", "bicubic", "avg", "max")


@dataclass(frozen=True)
class Resize:
    """How an image is resized: ``size`` in pixels for short and square, ``scale`` for rel."""

    kind: str = "none"
    size: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in RESIZE_TYPES:
            raise InputError(f"RESIZE_TYPE: {self.kind!r} is not one of {RESIZE_TYPES}")
        if self.kind in ("short", "square") and self.size < 1:
            raise InputError(f"IMAGE_SIZE: expected a positive number of pixels, found {self.size}")
        if self.kind == "rel" and self.scale <= 0:
            raise InputError(f"IMAGE_SCALE: expected a positive number, found {self.scale}")

    def __call__(self, images: Tensor) -> Tensor:
        """Resize floats [C, H, W] to [C, H', W']."""
        if self.kind == "none":
            return images
        if self.kind == "rel":
            # The given factor, not the ratio of rounded sizes, decides where samples lie.
            return F.interpolate(images[None], scale_factor=self.scale, mode="bilinear")[0]
        return resize_bilinear(images, self._output_size(*images.shape[-2:]))

    def _output_size(self, height: int, width: int) -> tuple[int, int]:
        if self.kind == "square":
            return self.size, self.size
        if height >= width:
            return int(height * self.size / width), self.size
        return self.size, int(width * self.size / height)


@dataclass(frozen=True)
class InputFormat:
    """What an encoder expects: channel statistics on the 0..255 scale, resizing and padding."""

    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    size_divisibility: int = 0
    train_resize: Resize = Resize()
    test_resize: Resize = Resize()


@dataclass(frozen=True)
class PaddedBatch:
    """B images in one tensor, with their N masks.

    Attributes:
        images: normalized [B, 3, H, W], 0 in the padding.
        image_sizes: (height, width) of every image inside the padded one.
        masks: per image [Q, h, w] at the size of its image; bool, integer or float in [0, 1]; or
            masks of a padded batch, still at their own resolution.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    masks: list[Tensor | SoftMasks]

    @property
    def masks_per_image(self) -> list[int]:
        return [len(masks) for masks in self.masks]

    @property
    def image_of_mask(self) -> Tensor:
        """int64 [N]: the image that each mask belongs to."""
        counts = torch.tensor(self.masks_per_image, device="cpu")
        return torch.repeat_interleave(counts).to(self.images.device, non_blocking=True)

    def padded_masks(self) -> Tensor:
        """float [N, H, W]: all masks at the padded size, 0 in the padding."""
        height, width = self.images.shape[-2:]
        resized = [
            _resize_soft(masks, size, size) if isinstance(masks, SoftMasks) else masks.float()
            for masks, size in zip(self.masks, self.image_sizes, strict=True)
        ]
        return torch.cat([_pad(masks, height, width) for masks in resized])

    def downsampled_masks(self, size: tuple[int, int], method: str = "bilinear") -> Tensor:
        """float [N, h, w]: all masks resized from the padded size to the feature grid ``size``."""
        if method != "bilinear":
            return downsample_masks(self.padded_masks(), size, method)
        padded = (self.images.shape[-2], self.images.shape[-1])
        return torch.cat(
            [
                _resize_soft(masks, image_size, padded, size)
                if isinstance(masks, SoftMasks)
                else _sample_bilinear(masks, padded, size)
                for masks, image_size in zip(self.masks, self.image_sizes, strict=True)
            ]
        )


def pad_batch(
    images: Sequence[Tensor],
    masks: Sequence[Tensor | SoftMasks] | None,
    input_format: InputFormat,
    resize: Resize,
    device: torch.device,
) -> PaddedBatch:
    """Normalize, resize and pad ``images`` ([3, h, w], values 0..255) and their masks.

    Args:
        images: one tensor per image; any dtype.
        masks: per image [Q, h, w] that span the image, at any resolution, or masks with a frame
            of their own; None: no masks.
        input_format: channel statistics and divisibility of the padded size.
        resize: what is done to every image.
        device: where the batch goes. Integer and boolean tensors travel as they are.

    Raises:
        ValueError: an image that is not [3, h, w], or masks that are not [Q, h, w].
    """
    mean = torch.tensor(input_format.pixel_mean, device=device).view(3, 1, 1)
    std = torch.tensor(input_format.pixel_std, device=device).view(3, 1, 1)
    if masks is None:
        masks = [image.new_zeros((0, *image.shape[-2:]), dtype=torch.bool) for image in images]
    resized_images: list[Tensor] = []
    resized_masks: list[Tensor | SoftMasks] = []
    for index, (image, image_masks) in enumerate(zip(images, masks, strict=True)):
        _check_shapes(index, image, image_masks)
        image = image.to(device, non_blocking=True).float()
        resized_images.append(resize((image - mean) / std))
        if isinstance(image_masks, SoftMasks):
            resized_masks.append(image_masks.to(device))
        else:
            image_masks = image_masks.to(device, non_blocking=True)
            resized_masks.append(_resize_masks(image_masks, resized_images[-1]))
    image_sizes = [(image.shape[-2], image.shape[-1]) for image in resized_images]
    height, width = padded_size(image_sizes, input_format.size_divisibility)
    padded = torch.stack([_pad(image, height, width) for image in resized_images])
    return PaddedBatch(padded, image_sizes, resized_masks)


def padded_size(sizes: Sequence[tuple[int, int]], divisibility: int) -> tuple[int, int]:
    """The largest height and width, each rounded up to a multiple of ``divisibility`` (if > 1)."""
    divisor = max(divisibility, 1)
    height, width = (max(side) for side in zip(*sizes, strict=True))
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def resize_bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize floats [N, H, W] (N may be 0) to [N, h, w]; not corner-aligned, not antialiased."""
    if maps.shape[-2:] == size:
        return maps
    if maps.shape[0] == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def downsample_masks(masks: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Resize soft masks float [N, H, W] (N may be 0) to [N, h, w] by a named method.

    ``avg`` and ``max`` are adaptive pooling; bicubic values are not clamped to [0, 1].
    """
    if method not in DOWNSAMPLE_METHODS:
        raise InputError(f"DOWNSAMPLE_METHOD: {method!r} is not one of {DOWNSAMPLE_METHODS}")
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
    return torch.nn.utils.rnn.pad_sequence(list(rows.split(list(counts))), batch_first=True)


def unpad_ragged(padded: Tensor, counts: Sequence[int]) -> Tensor:
    """The inverse of :func:`pad_ragged`: [B, Q, ...] -> [N, ...]."""
    return torch.cat([padded[index, :count] for index, count in enumerate(counts)])


def _pad(maps: Tensor, height: int, width: int) -> Tensor:
    return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))


def _sample_bilinear(masks: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Resize masks [Q, h, w], thought of as padded with 0 to ``padded_size``, to float ``size``.

    Bilinear shrinking without antialiasing reads 2 x 2 pixels per cell. Reading only these
    spares the padded float copy of every mask: Q x H x W floats of memory traffic.
    """
    rows = _bilinear_taps(padded_size[0], size[0], masks.shape[-2], masks.device)
    columns = _bilinear_taps(padded_size[1], size[1], masks.shape[-1], masks.device)
    result = masks.new_zeros((), dtype=torch.float32)
    for row_index, row_weight in rows:
        for column_index, column_weight in columns:
            corner = masks[:, row_index[:, None], column_index].float()
            result = result + corner * (row_weight[:, None] * column_weight)
    return result


def _bilinear_taps(
    padded: int, cells: int, length: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """The two pixels under every cell center, as (index, weight); weight 0 in the padding."""
    center = (torch.arange(cells, device=device) + 0.5) * (padded / cells) - 0.5
    center = center.clamp(min=0)
    low = center.long()
    fraction = center - low
    high = (low + 1).clamp(max=padded - 1)
    return [
        (index.clamp(max=length - 1), torch.where(index < length, weight, 0.0))
        for index, weight in ((low, 1 - fraction), (high, fraction))
    ]


def _resize_masks(masks: Tensor, image: Tensor) -> Tensor:
    """Masks [Q, h, w] at the size of ``image``; of unchanged dtype when they have it."""
    if masks.shape[-2:] == image.shape[-2:]:
        return masks
    own_size = (masks.shape[-2], masks.shape[-1])
    return _sample_bilinear(masks, own_size, (image.shape[-2], image.shape[-1]))


def _resize_soft(
    masks: SoftMasks,
    image_size: tuple[int, int],
    padded_size: tuple[int, int],
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Masks resized to ``image_size``, padded with 0 to ``padded_size``, resized to ``size``.

    All in one step; ``size`` None: not resized again.
    """
    matrices = []
    for dim in (0, 1):
        matrix = masks.axis_matrix(dim, image_size[dim])
        if size is not None:
            matrix = bilinear_matrix(padded_size[dim], size[dim])[:, : image_size[dim]] @ matrix
        matrices.append(matrix)
    return apply_matrices(masks.values, *matrices)


def _check_shapes(index: int, image: Tensor, masks: Tensor | SoftMasks) -> None:
    masks = SoftMasks.of(masks).values
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise InputError(f"image {index}: expected a [3, H, W] tensor, found {list(image.shape)}")
    if masks.ndim != 3 or 0 in masks.shape[-2:]:
        raise InputError(f"image {index}: expected [Q, h, w] masks, found {list(masks.shape)}")
