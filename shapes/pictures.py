"""Label maps as pictures: one color per class, names inside their segments, errors hatched."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
LabelMap = npt.NDArray[np.int64]
Color = tuple[int, int, int]

SCALE = 2  # pixels of the picture per pixel of the scene
OPACITY = 0.7  # of the class colors over the gray image
FONT_SIZES = (17, 15, 13, 11)
LABEL_MARGIN = 4  # pixels between a name and the border of its segment
HATCH_PERIOD, HATCH_WIDTH = 14, 3


def draw_segments(
    image: UInt8Array,
    labels: LabelMap,
    truth: LabelMap,
    names: Sequence[str],
    colors: Sequence[Color],
) -> Image.Image:
    """Paint a label map over its scene; pixels that differ from the truth are hatched.

    Args:
        image: RGB [H, W, 3].
        labels: class of every pixel [H, W]; other numbers than those of `names` are left bare.
        truth: the right classes [H, W]; pass `labels` itself to hatch nothing.
        names: class names by number.
        colors: RGB colors by class number.
    """
    gray = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    palette = np.array(colors, dtype=np.float64)
    named = (labels >= 0) & (labels < len(names))
    painted = gray.copy()
    painted[named] = (1 - OPACITY) * gray[named] + OPACITY * palette[labels[named]]
    picture = _enlarged(painted.astype(np.uint8))
    large = _enlarged(labels)
    picture[_hatch(large.shape) & _enlarged((labels != truth) & named)] = (20, 20, 20)
    picture[_borders(large)] = 255
    drawing = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawing)
    for number in np.unique(labels[named]).tolist():
        count, regions = cv2.connectedComponents((large == number).astype(np.uint8))
        for region in range(1, count):
            _write_name(pen, regions == region, names[number], colors[number])
    return drawing


def _enlarged(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def _hatch(shape: tuple[int, ...]) -> BoolArray:
    """Diagonal lines."""
    rows, columns = np.indices(shape[:2])
    return (rows + columns) % HATCH_PERIOD < HATCH_WIDTH


def _borders(labels: LabelMap) -> BoolArray:
    """Pixels whose left or upper neighbor has another label."""
    borders = np.zeros(labels.shape, dtype=bool)
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    borders[1:] |= labels[1:] != labels[:-1]
    return borders


def _write_name(pen: ImageDraw.ImageDraw, region: BoolArray, name: str, color: Color) -> None:
    """Write a name where it lies inside its region, as large as possible; else not at all."""
    words = name.split()
    layouts = dict.fromkeys((name, f"{words[0]}\n{' '.join(words[1:])}", "\n".join(words)))
    for size in FONT_SIZES:
        font = ImageFont.load_default(size=size)
        for text in layouts:
            left, top, right, bottom = pen.multiline_textbbox(
                (0, 0), text, font=font, anchor="mm", align="center", spacing=2
            )
            center = place_box(region, round(right - left), round(bottom - top))
            if center is None:
                continue
            bright = float(np.dot(color, (0.299, 0.587, 0.114))) > 110
            ink, edge = ((15, 15, 15), color) if bright else ((255, 255, 255), (25, 25, 25))
            pen.multiline_text(
                (center[0] - (left + right) / 2, center[1] - (top + bottom) / 2),
                text,
                font=font,
                anchor="mm",
                align="center",
                spacing=2,
                fill=ink,
                stroke_width=2,
                stroke_fill=edge,
            )
            return


def place_box(region: BoolArray, width: int, height: int) -> tuple[int, int] | None:
    """The deepest center (x, y) of a box with a margin inside a region [H, W], if there is one."""
    size = (width + 2 * LABEL_MARGIN, height + 2 * LABEL_MARGIN)
    if size[0] > region.shape[1] or size[1] > region.shape[0] or region.sum() < size[0] * size[1]:
        return None
    inside = cv2.erode(
        region.astype(np.uint8),
        np.ones(size[::-1], np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    if not inside.any():
        return None
    depth = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(column), int(row)
