"""Soft masks at the resolution at which they were found, and where the image lies in them."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from maskclippp.devices import copied_to
from maskclippp.masks.resampling import Taps, resample


@dataclass(frozen=True)
class Frame:
    """Where the image lies in masks of a padded batch.

    Attributes:
        padded_size: height and width of the padded batch, in pixels of the generator.
        image_size: height and width of the image, its upper left part.
    """

    padded_size: tuple[int, int]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class SoftMasks:
    """Masks of one image at the resolution of their generator.

    A generator works on a padded batch and finds masks at a fraction of its size. Masks at an
    output size are *defined* by these lines (without a frame, by the last one)::

        def resized(values, frame, size):  # [Q, h, w] -> [Q, H, W]
            def interpolate(maps, size):
                return F.interpolate(maps[None], size=size, mode="bilinear")[0]

            padded = interpolate(values.float(), frame.padded_size)
            height, width = frame.image_size
            return interpolate(padded[:, :height, :width], size)

    All of it is linear and acts on rows and columns independently, so that it is composed into one
    sparse map for each (:meth:`taps`); masks of the padded size are never made.

    Attributes:
        values: [Q, h, w], bool, integer 0 or 1, or floats in [0, 1].
        frame: where the image lies in them; None: they span exactly the image.
    """

    values: Tensor
    frame: Frame | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor) -> "SoftMasks":
        """The masks of an index, int64 or bool."""
        return SoftMasks(self.values[index], self.frame)

    def to(self, device: torch.device) -> "SoftMasks":
        """The same on a device."""
        return SoftMasks(copied_to(self.values, device), self.frame)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the values."""
        return self.values.shape[-2], self.values.shape[-1]

    def taps(self, size: tuple[int, int]) -> tuple[Taps, Taps]:
        """The maps of rows and of columns that bring the values to ``size``."""
        if self.frame is None:
            rows, columns = map(Taps.bilinear, self.shape, size)
        else:
            frame = self.frame
            rows, columns = map(
                _taps_of_frame, self.shape, frame.padded_size, frame.image_size, size
            )
        return rows, columns

    def resized(self, size: tuple[int, int]) -> Tensor:
        """float32 [Q, H, W]."""
        return resample(self.values, *self.taps(size))

    def reduced(self, size: tuple[int, int]) -> tuple[Tensor, Taps, Taps]:
        """The values resized to ``size`` along the axes where they are larger.

        Returns:
            [Q, h, w] no larger than ``size``, and the maps that bring their rows and columns to it.
        """
        now, later = [], []
        for source, target, taps in zip(self.shape, size, self.taps(size), strict=True):
            shrinks = target < source
            now.append(taps if shrinks else Taps.bilinear(source, source))
            later.append(Taps.bilinear(target, target) if shrinks else taps)
        if all(taps.is_identity for taps in now):
            return self.values, later[0], later[1]
        return resample(self.values, *now), later[0], later[1]


@lru_cache(maxsize=512)
def _taps_of_frame(source: int, padded: int, image: int, target: int) -> Taps:
    """One axis: enlarge to the padded batch, take the image's part, resize."""
    return Taps.bilinear(image, target).after(Taps.bilinear(source, padded)[:image])
