"""Random geometry for training, as torchvision v2 transforms of an image with its annotation.

Annotation is any number of :class:`ClassIds`, :class:`Segments` and :class:`Vertices`.

All draws come from numpy's global generator, in the order of the published training. Images are
resized by Pillow's bilinear filter (antialiased); the published numbers depend on it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from maskclippp.errors import InputError

IMAGE_PADDING = 128

LabelSampling = Literal["center", "corner"]
"""Point of a target pixel that selects the source pixel; torch's "nearest" uses corners."""


class ClassIds(tv_tensors.Mask):
    """Class ids [h, w]. They are resized at pixel corners, as in the published training."""


class Segments(tv_tensors.Mask):
    """Segment ids [h, w] or masks [n, h, w]. Resized at pixel centers, padded with 0."""


class Vertices(tv_tensors.TVTensor):
    """Vertices of polygons: float64 [n, 2], x and y in pixels; they may lie outside the image."""

    @classmethod
    def of(cls, points: torch.Tensor) -> "Vertices":
        """The points, [n, 2] or flat, as vertices."""
        return points.reshape(-1, 2).double().as_subclass(cls)


def resize_labels(
    labels: torch.Tensor, size: Sequence[int], sampling: LabelSampling
) -> torch.Tensor:
    """Nearest-neighbor resizing of integer labels [h, w] or [n, h, w] to ``size`` (height, width).

    Values must fit into 32-bit integers; the result is int64 [*size] or [n, *size].
    """
    height, width = size
    if labels.ndim == 3:
        resized = labels.new_empty((len(labels), height, width), dtype=torch.int64)
        for index, label_map in enumerate(labels):
            resized[index] = resize_labels(label_map, size, sampling)
        return resized
    if sampling == "corner":
        # torch's index arithmetic, as in the published training; float64 holds labels exactly.
        resized = torch.nn.functional.interpolate(labels[None, None].double(), (height, width))
        return resized[0, 0].long()
    # Pillow, because float32 index arithmetic can miss the center pixel by one.
    image = Image.fromarray(labels.numpy().astype(np.int32))
    return torch.from_numpy(
        np.array(image.resize((width, height), Image.Resampling.NEAREST))
    ).long()


def shortest_edge_size(
    height: int, width: int, shortest: int, longest: int | float
) -> tuple[int, int]:
    """(height, width) with the shorter side at ``shortest``, the longer at most ``longest``.

    Both sides are rounded half up; ``shortest`` 0 keeps the size.
    """
    if shortest == 0:
        return height, width
    scale = shortest / min(height, width)
    new_height, new_width = (
        (shortest, scale * width) if height < width else (scale * height, shortest)
    )
    if max(new_height, new_width) > longest:
        limit = longest / max(new_height, new_width)
        new_height, new_width = new_height * limit, new_width * limit
    return int(new_height + 0.5), int(new_width + 0.5)


class RandomFlip(v2.Transform):
    """Flip with probability 1/2 in ``direction``: "horizontal", "vertical" or "none"."""

    def __init__(self, direction: str) -> None:
        super().__init__()
        if direction not in ("horizontal", "vertical", "none"):
            raise InputError(
                f"INPUT.RANDOM_FLIP: expected horizontal, vertical or none, found {direction!r}"
            )
        self.direction = direction

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        flip = self.direction != "none" and bool(np.random.uniform() < 0.5)
        return {"flip": flip, "canvas": v2.query_size(flat_inputs)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not params["flip"]:
            return inpt
        if isinstance(inpt, Vertices):
            height, width = params["canvas"]
            x, y = inpt.unbind(1)
            flipped = (width - x, y) if self.direction == "horizontal" else (x, height - y)
            return Vertices.of(torch.stack(flipped, dim=1))
        flip = F.horizontal_flip if self.direction == "horizontal" else F.vertical_flip
        return flip(inpt)


class _Resize(v2.Transform):
    """Resizes from ``canvas`` to ``size``, both (height, width)."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        size = params["size"]
        if isinstance(inpt, Vertices):
            (old_height, old_width), (height, width) = params["canvas"], size
            scale = torch.tensor([width / old_width, height / old_height], dtype=torch.float64)
            return Vertices.of(inpt.as_subclass(torch.Tensor) * scale)
        if isinstance(inpt, tv_tensors.Mask):
            sampling: LabelSampling = "corner" if isinstance(inpt, ClassIds) else "center"
            resized = resize_labels(inpt.as_subclass(torch.Tensor), size, sampling)
            return resized.as_subclass(type(inpt))
        return F.resize(inpt, size, interpolation=v2.InterpolationMode.BILINEAR)


class ResizeShortestEdge(_Resize):
    """Scale the shorter side to a random size, the longer side staying within ``longest``.

    Args:
        shortest: sizes to choose from ("choice"), or smallest and largest size ("range").
    """

    def __init__(self, shortest: Sequence[int], longest: int, sampling: str) -> None:
        super().__init__()
        if sampling not in ("choice", "range"):
            raise InputError(
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING: expected choice or range, found {sampling!r}"
            )
        if sampling == "range" and len(shortest) != 2:
            raise InputError(
                "INPUT.MIN_SIZE_TRAIN: sampling by range needs a smallest and a largest size, "
                f"found {tuple(shortest)}"
            )
        if not shortest:
            raise InputError("INPUT.MIN_SIZE_TRAIN: at least one size is needed")
        self.shortest = tuple(shortest)
        self.longest = longest
        self.sampling = sampling

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if self.sampling == "range":
            shortest = np.random.randint(self.shortest[0], self.shortest[1] + 1)
        else:
            shortest = np.random.choice(self.shortest)
        height, width = v2.query_size(flat_inputs)
        size = shortest_edge_size(height, width, int(shortest), self.longest)
        return {"size": size, "canvas": (height, width)}


class LargeScaleJitter(_Resize):
    """Fit the image into a square of ``side`` times a factor uniform in [min_scale, max_scale]."""

    def __init__(self, side: int, min_scale: float, max_scale: float) -> None:
        super().__init__()
        if side < 1 or not 0 < min_scale <= max_scale:
            raise InputError(
                "expected INPUT.IMAGE_SIZE >= 1 and 0 < INPUT.MIN_SCALE <= INPUT.MAX_SCALE, found "
                f"{side}, {min_scale}, {max_scale}"
            )
        self.side, self.min_scale, self.max_scale = side, min_scale, max_scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        side = self.side * np.random.uniform(self.min_scale, self.max_scale)
        scale = min(side / height, side / width)
        # The short side of an extreme aspect ratio must not become 0.
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return {"size": size, "canvas": (height, width)}


class _Crop(v2.Transform):
    """Crops a window (top, left, height, width); polygons are moved and keep all vertices."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, Vertices):
            corner = torch.tensor([params["left"], params["top"]], dtype=torch.float64)
            return Vertices.of(inpt.as_subclass(torch.Tensor) - corner)
        return F.crop(inpt, **params)


class FixedSizeCrop(_Crop):
    """Crop a square of ``side`` pixels, or less along an axis where the image is smaller.

    One random number places the crop along both axes.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        slack = np.maximum([height - self.side, width - self.side], 0)
        top, left = np.round(slack * np.random.uniform()).astype(int)
        return {
            "top": int(top),
            "left": int(left),
            "height": min(height, self.side),
            "width": min(width, self.side),
        }


class RandomCrop(_Crop):
    """Crop a random rectangle.

    Args:
        crop_type: meaning of ``crop_size``. "absolute": height and width in pixels, at most those
            of the image; "absolute_range": smallest and largest side in pixels; "relative": shares
            of the image's height and width; "relative_range": smallest shares, the largest being 1.
        max_category_share: if below 1, up to ten crops are drawn until one has several categories
            that each cover less than this share of the pixels not labeled ``ignore_label``. If all
            fail, the last one is used. Requires class ids.
    """

    _TYPES = ("absolute", "absolute_range", "relative", "relative_range")
    _ATTEMPTS = 10

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        max_category_share: float = 1.0,
        ignore_label: int = 255,
    ) -> None:
        super().__init__()
        if crop_type not in self._TYPES:
            raise InputError(f"INPUT.CROP.TYPE: expected one of {self._TYPES}, found {crop_type!r}")
        if crop_type.startswith("relative") and not all(0 < share <= 1 for share in crop_size):
            raise InputError(f"INPUT.CROP.SIZE: shares must lie in (0, 1], found {crop_size}")
        if crop_type.startswith("absolute") and not all(side >= 1 for side in crop_size):
            raise InputError(f"INPUT.CROP.SIZE: sides must be pixels >= 1, found {crop_size}")
        if crop_type == "absolute_range" and crop_size[0] > crop_size[1]:
            raise InputError(
                "INPUT.CROP.SIZE: absolute_range needs a smallest and a largest side in this "
                f"order, found {tuple(crop_size)}"
            )
        self.crop_type = crop_type
        self.crop_size = (crop_size[0], crop_size[1])
        self.max_category_share = max_category_share
        self.ignore_label = ignore_label

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        if self.max_category_share >= 1:
            return self._draw(height, width)
        (labels,) = (item for item in flat_inputs if isinstance(item, ClassIds))
        for _ in range(self._ATTEMPTS):
            crop = self._draw(height, width)
            if self._is_varied(F.crop(labels, **crop)):
                break
        return crop

    def _draw(self, height: int, width: int) -> dict[str, int]:
        crop_height, crop_width = self._draw_size(height, width)
        top = np.random.randint(height - crop_height + 1)
        left = np.random.randint(width - crop_width + 1)
        return {"top": int(top), "left": int(left), "height": crop_height, "width": crop_width}

    def _draw_size(self, height: int, width: int) -> tuple[int, int]:
        first, second = self.crop_size
        if self.crop_type == "absolute":
            return min(int(first), height), min(int(second), width)
        if self.crop_type == "absolute_range":
            smallest, largest = int(first), int(second)
            sides = [
                int(np.random.randint(min(side, smallest), min(side, largest) + 1))
                for side in (height, width)
            ]
            return sides[0], sides[1]
        shares = np.array(self.crop_size)
        if self.crop_type == "relative_range":
            # The published training rounds only the smallest shares to single precision.
            least = shares.astype(np.float32)
            shares = least + np.random.rand(2) * (1 - least)
        return int(height * shares[0] + 0.5), int(width * shares[1] + 0.5)

    def _is_varied(self, labels: torch.Tensor) -> bool:
        counts = torch.unique(labels[labels != self.ignore_label], return_counts=True)[1]
        return len(counts) > 1 and bool(counts.max() < self.max_category_share * counts.sum())


def pad_to(inpt: Any, size: Sequence[int], label_padding: int = 0) -> Any:
    """Pad or cut at the right and bottom to ``size`` (height, width).

    Images are padded with 128, class ids with ``label_padding``, segments with 0; vertices are
    returned unchanged.
    """
    if isinstance(inpt, Vertices):
        return inpt
    height, width = v2.query_size([inpt])
    padding = [0, 0, size[1] - width, size[0] - height]  # negative values cut
    if not any(padding):
        return inpt
    if isinstance(inpt, tv_tensors.Mask):
        return F.pad(inpt, padding, fill=label_padding if isinstance(inpt, ClassIds) else 0)
    return F.pad(inpt, padding, fill=IMAGE_PADDING)
