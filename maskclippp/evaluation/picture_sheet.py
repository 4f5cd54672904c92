"""A sheet of the best and worst images: image, ground truth, prediction."""

import heapq
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.utils import comm
from PIL import Image, ImageDraw, ImageFont

from maskclippp.files.atomic import atomic_write
from maskclippp.files.images import read_image
from maskclippp.visualization import draw_labels

_LOGGER = logging.getLogger(__name__)
_IMAGES_EACH = 6
_MAP_SIDE = 160  # longest side of the stored maps, in pixels
_SCALE = 2  # magnification of the maps on the sheet
_CELL = _SCALE * _MAP_SIDE
_CAPTION_HEIGHT = 20
_PANELS = ("image", "ground truth", "prediction")

SmallMap = npt.NDArray[np.uint16]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class ScoredImage:
    """An image's score (percent) and its small class maps; values that are not classes are void."""

    score: float
    file_name: str
    truth: SmallMap
    prediction: SmallMap


def every_nth(labels: Labels) -> Labels:
    """Every n-th pixel in both directions (a view), so that no side exceeds 160 pixels."""
    step = math.ceil(max(1, *labels.shape) / _MAP_SIDE)
    return labels[::step, ::step]


def shrink(class_map: npt.NDArray[np.integer]) -> SmallMap:
    """A small copy of a map of classes."""
    return every_nth(class_map).astype(np.uint16)


class PictureSheet:
    """Keeps the best and worst images of a process; memory does not grow with their number."""

    def __init__(self) -> None:
        self._best: list[ScoredImage] = []
        self._worst: list[ScoredImage] = []
        self._taken: set[str] = set()

    def offer(self, image: ScoredImage) -> None:
        """Keep the image if it is among the best or worst; images without a score (NaN) are not."""
        if not math.isnan(image.score):
            self._best = _best([*self._best, image])
            self._worst = _worst([*self._worst, image])

    def take_new(self) -> list[ScoredImage]:
        """The kept images that earlier calls have not returned; one that is dropped is no more."""
        kept = {image.file_name: image for image in (*self._best, *self._worst)}
        new = [image for name, image in kept.items() if name not in self._taken]
        self._taken = set(kept)
        return new

    def write(self, path: Path, class_names: Sequence[str], metric: str) -> None:
        """Gather the images of all processes and draw them; every process must call it.

        Without images no sheet is written, and that of an earlier evaluation is removed.
        """
        gathered = comm.gather((self._best, self._worst))
        if not comm.is_main_process():
            return
        best = _best(image for kept, _ in gathered for image in kept)
        shown = {image.file_name for image in best}
        worst = _worst(image for _, kept in gathered for image in kept)
        worst = [image for image in worst if image.file_name not in shown]
        if not best:
            path.unlink(missing_ok=True)
            return
        sheet = _draw_sheet(best, worst, class_names, metric)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            sheet.save(file, format="PNG")


def _best(images: Iterable[ScoredImage]) -> list[ScoredImage]:
    return heapq.nsmallest(_IMAGES_EACH, images, key=lambda i: (-i.score, i.file_name))


def _worst(images: Iterable[ScoredImage]) -> list[ScoredImage]:
    return heapq.nsmallest(_IMAGES_EACH, images, key=lambda i: (i.score, i.file_name))


def _draw_sheet(
    best: Sequence[ScoredImage],
    worst: Sequence[ScoredImage],
    class_names: Sequence[str],
    metric: str,
) -> Image.Image:
    """A column of the best images on the left, and one of the worst on the right."""
    columns = [column for column in (best, worst) if column]
    heights = [
        _CAPTION_HEIGHT + _SCALE * max(c[row].truth.shape[0] for c in columns if row < len(c))
        for row in range(len(best))
    ]
    sheet = Image.new("RGB", (len(columns) * len(_PANELS) * _CELL, sum(heights)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, column in enumerate(columns):
        kind = ("best", "worst")[number]
        left, top = number * len(_PANELS) * _CELL, 0
        for image, height in zip(column, heights, strict=False):
            caption = f"{kind}: {metric} {image.score:.1f} %, {Path(image.file_name).name}"
            draw.text((left + 4, top + 3), caption, fill="black", font=font)
            for panel, picture in enumerate(_panels(image, class_names)):
                sheet.paste(picture, (left + panel * _CELL, top + _CAPTION_HEIGHT))
            top += height
    return sheet


def _panels(scored: ScoredImage, class_names: Sequence[str]) -> list[Image.Image]:
    """The image, its ground truth and its prediction, of equal size."""
    height, width = scored.truth.shape
    image = _image(scored.file_name, (width, height))
    pixels = np.asarray(image.resize((width, height)))
    maps = (scored.truth, scored.prediction)
    drawn = [draw_labels(pixels, labels, class_names, scale=_SCALE) for labels in maps]
    return [image.resize((width * _SCALE, height * _SCALE)), *drawn]


def _image(file_name: str, size: tuple[int, int]) -> Image.Image:
    """The image, or gray with a warning if unreadable: a picture must not stop an evaluation."""
    try:
        return read_image(file_name)
    except (OSError, ValueError) as error:
        _LOGGER.warning("picture sheet: %s", error)
        return Image.new("RGB", size, (128, 128, 128))
