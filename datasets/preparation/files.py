"""Files of prepared datasets: how each one is made and checked."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from maskclippp.files.atomic import atomic_write
from maskclippp.files.images import (
    LabelArray,
    check_same_size,
    read_image,
    read_image_size,
    read_label_map,
    read_panoptic_ids,
)

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class PreparedFile(ABC):
    """A file made by a script; its folder must exist."""

    target: Path

    @abstractmethod
    def make(self) -> None:
        """Write the file atomically; raises OSError or ValueError if the original is bad."""

    @abstractmethod
    def compare(self) -> str | None:
        """How the file differs from the expected one; OSError or ValueError if it is broken."""

    def find_fault(self) -> str | None:
        """A message about what is wrong with the file or its original; None if nothing is."""
        try:
            difference = self.compare()
        except (OSError, ValueError) as error:
            return str(error)
        return None if difference is None else f"{self.target}: {difference}"


@dataclass(frozen=True)
class LabelMap(PreparedFile):
    """A map of class ids [h, w]: an 8-bit PNG or a 16-bit TIFF.

    ``compute`` returns uint8 or uint16. It is sent to other processes, so it must be an importable
    function or a ``functools.partial`` of one.
    """

    compute: Callable[[], npt.NDArray[Any]]

    def make(self) -> None:
        self._write(self.compute())

    def compare(self) -> str | None:
        found = self._read()
        expected = self.compute()
        if found.shape != expected.shape:
            return f"size {found.shape}, expected {expected.shape}"
        wrong = int((found != expected).sum())
        return f"{wrong} pixels differ from the original annotation" if wrong else None

    def _write(self, labels: npt.NDArray[Any]) -> None:
        # Deflate makes 16-bit maps 20 times smaller, and every TIFF reader supports it.
        kind = {"compression": "tiff_deflate"} if self.target.suffix == ".tif" else {}
        with atomic_write(self.target, durable=False) as file:  # syncing 100,000 files is slow
            Image.fromarray(labels).save(file, format="TIFF" if kind else "PNG", **kind)

    def _read(self) -> LabelArray:
        return read_label_map(self.target)


@dataclass(frozen=True)
class PanopticMap(LabelMap):
    """A map of segment ids [h, w] as an RGB PNG, id = R + 256 G + 65536 B."""

    def _write(self, labels: npt.NDArray[Any]) -> None:
        channels = np.stack([labels >> shift & 255 for shift in (0, 8, 16)], axis=-1)
        super()._write(channels.astype(np.uint8))

    def _read(self) -> LabelArray:
        return read_panoptic_ids(self.target)


@dataclass(frozen=True)
class CopiedImage(PreparedFile):
    """A byte-for-byte copy of an image."""

    source: Path

    def make(self) -> None:
        read_image(self.source)  # raises if the original is damaged
        with self.source.open("rb") as source, atomic_write(self.target, durable=False) as file:
            shutil.copyfileobj(source, file)

    def compare(self) -> str | None:
        read_image(self.target)
        same = cmp(self.source, self.target, shallow=False)
        return None if same else f"is not a copy of {self.source}"


@dataclass(frozen=True)
class ShrunkenImage(PreparedFile):
    """A JPEG whose shorter side is at most ``short_side`` pixels, as in :func:`shrunken_size`.

    It keeps the orientation of the stored pixels and ignores EXIF, as the annotated masks do.
    """

    source: Path
    short_side: int

    def make(self) -> None:
        read_image(self.source)  # for its errors, which name the file
        with Image.open(self.source) as image:
            pixels = np.asarray(image.convert("RGB"))
        size = stored_size(self.source)
        height, width = shrunken_size(size, self.short_side)
        if (height, width) != size:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        with atomic_write(self.target, durable=False) as file:
            Image.fromarray(pixels).save(file, format="JPEG", quality=_JPEG_QUALITY)

    def compare(self) -> str | None:
        expected = shrunken_size(stored_size(self.source), self.short_side)
        found = read_image(self.target)
        size = (found.height, found.width)
        return None if size == expected else f"size {size}, expected {expected}"


@dataclass(frozen=True)
class GivenImage:
    """An image of the original dataset, and the label map that must have the same size."""

    image: Path
    label_map: Path

    def find_fault(self) -> str | None:
        """A message about what is wrong with the image; None if nothing is."""
        try:
            pixels = read_image(self.image)
            if self.label_map.is_file():
                sizes = (pixels.height, pixels.width), read_image_size(self.label_map)
                check_same_size(sizes[0], self.image, sizes[1], self.label_map)
        except (OSError, ValueError) as error:
            return str(error)
        return None


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) of the stored pixels, ignoring the EXIF orientation.

    Raises:
        MissingFileError, UnreadableFileError: as :func:`read_image_size`.
    """
    read_image_size(path)  # for its errors
    with Image.open(path) as image:
        return image.height, image.width


def shrunken_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side reduced to ``short_side``; smaller sizes are kept.

    The aspect ratio is kept; the longer side is rounded to the nearest pixel.
    """
    height, width = size
    scale = short_side / min(height, width)
    if scale >= 1:
        return height, width
    return round(height * scale), round(width * scale)


def shrink_labels(labels: npt.NDArray[np.uint16], short_side: int) -> npt.NDArray[np.uint16]:
    """Labels [h, w], resized like their :class:`ShrunkenImage` but by nearest neighbor."""
    height, width = shrunken_size((labels.shape[0], labels.shape[1]), short_side)
    if (height, width) == labels.shape:
        return labels
    shrunken = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(shrunken, np.uint16)
