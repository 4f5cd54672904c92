"""Pictures of segmentations: colored regions, each with its class name."""

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from maskclippp.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.integer]

# Puts the hues of consecutive class numbers far apart.
_GOLDEN_RATIO = 0.618033988749895


def class_color(index: int) -> tuple[int, int, int]:
    """A saturated RGB color for a class number, the same in every picture."""
    hue = (index * _GOLDEN_RATIO) % 1.0
    value = 1.0 if index % 2 == 0 else 0.8
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_labels(
    image: UInt8Array,
    labels: LabelArray,
    class_names: Sequence[str],
    *,
    scale: int = 2,
    opacity: float = 0.5,
    min_share: float = 0.004,
) -> Image.Image:
    """Draw a label map over its image, with the class name in each region.

    Args:
        image: RGB [H, W, 3].
        labels: class of every pixel [H, W]; other numbers than 0..K-1 are not colored.
        class_names: K names; only the first of several synonyms is shown.
        scale: factor by which the picture is enlarged, to keep names legible.
        opacity: of the colors, in [0, 1].
        min_share: regions smaller than this share of the image get no name.

    Raises:
        InputError: image and label map differ in size.
    """
    if image.shape[:2] != labels.shape:
        raise InputError(f"image is {image.shape[:2]} pixels, its label map {labels.shape}")
    blended = image.astype(np.float64)
    present = [int(c) for c in np.unique(labels) if 0 <= c < len(class_names)]
    for index in present:
        inside = labels == index
        color = np.array(class_color(index), dtype=np.float64)
        blended[inside] = (1 - opacity) * blended[inside] + opacity * color
    blended[_borders(labels)] = 255
    height, width = labels.shape
    picture = Image.fromarray(blended.astype(np.uint8))
    picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=8 * scale)
    for index in present:
        regions, count = ndimage.label(labels == index)
        sizes = ndimage.sum_labels(np.ones_like(regions), regions, range(1, count + 1))
        for region in np.flatnonzero(sizes >= min_share * labels.size) + 1:
            row, column = _center(regions == region)
            _write(draw, class_names[index].split(",")[0], column * scale, row * scale, font)
    return picture


def _borders(labels: LabelArray) -> npt.NDArray[np.bool_]:
    """Pixels whose left or upper neighbor has another label."""
    borders = np.zeros(labels.shape, dtype=bool)
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    borders[1:] |= labels[1:] != labels[:-1]
    return borders


def _center(region: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Row and column of the point that is farthest from the border of the region."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(row - 1), float(column - 1)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    x: float,
    y: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write dark text on a white box, centered at (x, y) or moved so that it is in the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = draw.im.size
    x = min(max(x, (right - left) / 2 + 2), width - (right - left) / 2 - 2)
    y = min(max(y, (bottom - top) / 2 + 2), height - (bottom - top) / 2 - 2)
    box = draw.textbbox((x, y), text, font=font, anchor="mm")
    draw.rectangle((box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 1), fill=(255, 255, 255))
    draw.text((x, y), text, fill=(20, 20, 20), font=font, anchor="mm")
