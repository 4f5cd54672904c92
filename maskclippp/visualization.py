"""Pictures of segmentations: colored regions with outlines and names, and a legend.

Every picture of the project is drawn by :func:`draw_regions`. A word has one color everywhere
(:func:`word_colors`). The colors can be told apart with any kind of color vision; what has no
class is hatched.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from maskclippp.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.integer]
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Okabe and Ito (2008) without black, then the muted scheme of Paul Tol (2021).
_BASE_COLORS: tuple[Color, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178)),
    *((213, 94, 0), (204, 121, 167), (136, 34, 85), (51, 34, 136), (153, 153, 51)),
    *((221, 204, 119), (170, 68, 153), (17, 119, 51), (136, 204, 238)),
)
# Further rounds mix them with white or black.
_MIXED = ((0, 0.0), (255, 0.45), (0, 0.45))
PALETTE: tuple[Color, ...] = tuple(
    tuple(round((1 - share) * channel + share * other) for channel in color)  # type: ignore[misc]
    for other, share in _MIXED
    for color in _BASE_COLORS
)
VOID_COLOR: Color = (128, 128, 128)
_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)
_BRIGHTNESS = (0.299, 0.587, 0.114)
_HATCH_PERIOD, _HATCH_WIDTH = 12, 2
_MARGIN = 3  # pixels between a name and the border of its region
# Names are between these sizes, in pixels; in larger pictures they are larger.
_SMALLEST_FONT, _LARGEST_FONT, _FONT_SHARE = 9, 17, 1 / 28
_SEARCHED_SIDE = 400  # largest region that is searched for room pixel by pixel


def word_colors(names: Sequence[str]) -> list[Color]:
    """One color per class name, by its first synonym.

    A word gets the same color in every vocabulary, unless one before it has taken that. From 43
    classes on, colors repeat.
    """
    taken: set[int] = set()
    colors = []
    for name in names:
        word = name.split(",")[0].strip().lower()
        hashed = hashlib.blake2b(word.encode(), digest_size=4).digest()
        slot = int.from_bytes(hashed, "big") % len(PALETTE)
        if len(taken) == len(PALETTE):
            taken.clear()
        while slot in taken:
            slot = (slot + 1) % len(PALETTE)
        taken.add(slot)
        colors.append(PALETTE[slot])
    return colors


def draw_labels(
    image: UInt8Array,
    labels: LabelArray,
    class_names: Sequence[str],
    *,
    scale: int = 1,
    opacity: float = 0.5,
    legend: bool = False,
) -> Image.Image:
    """Draw a map of class numbers [H, W]; see :func:`draw_regions`."""
    present = [int(c) for c in np.unique(labels) if 0 <= c < len(class_names)]
    colors = word_colors(class_names)
    return draw_regions(
        image,
        labels,
        {index: class_names[index] for index in present},
        {index: colors[index] for index in present},
        scale=scale,
        opacity=opacity,
        legend=legend,
    )


def draw_regions(
    image: UInt8Array,
    regions: LabelArray,
    names: Mapping[int, str],
    colors: Mapping[int, Color],
    *,
    hatched: BoolArray | None = None,
    scale: int = 1,
    opacity: float = 0.5,
    outlines: bool = True,
    legend: bool = False,
) -> Image.Image:
    """Draw a map of regions over its image, with the name in each region where it fits.

    Args:
        image: RGB [H, W, 3].
        regions: number of the region of every pixel [H, W].
        names: of the regions that are drawn; only the first of several synonyms is shown.
        colors: RGB, of the same regions.
        hatched: what is hatched [H, W]; default: the pixels of no named region.
        scale: factor by which the picture is enlarged.
        opacity: of the colors, in [0, 1].
        outlines: draw a line between regions.
        legend: add the names below the picture.

    Raises:
        InputError: image and map differ in size.
    """
    if image.shape[:2] != regions.shape:
        raise InputError(f"image is {image.shape[:2]} pixels, its label map {regions.shape}")
    present, inverse = _numbered(regions)
    named = np.array([int(number) in names for number in present], dtype=bool)
    table = np.array([colors.get(int(number), VOID_COLOR) for number in present], dtype=np.float32)
    inside = named[inverse]
    weight = np.where(named, opacity, 0)[:, None].astype(np.float32)
    painted = ((1 - weight)[inverse] * image + (weight * table + 0.5)[inverse]).astype(np.uint8)
    painted, large = _enlarged(painted, scale), _enlarged(inverse, scale)
    _hatch(painted, _enlarged(~inside if hatched is None else hatched, scale))
    if outlines:
        painted[_borders(large)] = _LIGHT
    picture = Image.fromarray(painted)
    shown = {
        index: (names[int(number)].split(",")[0].strip(), colors[int(number)])
        for index, number in enumerate(present)
        if named[index]
    }
    _write_names(picture, large, shown)
    return _with_legend(picture, dict(shown.values())) if legend else picture


def _numbered(regions: LabelArray) -> tuple[LabelArray, LabelArray]:
    """The numbers that occur, ascending, and for every pixel the position of its number."""
    lowest = int(regions.min())
    shifted = regions.astype(np.int64) - lowest
    occurs = np.bincount(shifted.ravel()) > 0  # 20 times as fast as the sorting of np.unique
    return np.flatnonzero(occurs) + lowest, (occurs.cumsum() - 1)[shifted]


def _enlarged(array: npt.NDArray[Any], scale: int) -> npt.NDArray[Any]:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def _hatch(picture: UInt8Array, where: BoolArray) -> None:
    """Draw diagonal lines, dark with a light edge, into the picture [H, W, 3]."""
    rows, columns = np.ogrid[: where.shape[0], : where.shape[1]]
    phase = (rows + columns) % _HATCH_PERIOD
    picture[where & (phase < _HATCH_WIDTH)] = _DARK
    picture[where & (phase == _HATCH_WIDTH)] = _LIGHT


def _borders(labels: LabelArray) -> BoolArray:
    """Pixels whose left or upper neighbor has another label."""
    borders = np.zeros(labels.shape, dtype=bool)
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    borders[1:] |= labels[1:] != labels[:-1]
    return borders


def _write_names(
    picture: Image.Image, regions: LabelArray, shown: Mapping[int, tuple[str, Color]]
) -> None:
    """Write each name into the parts of its region that can hold it, as large as possible."""
    pen = ImageDraw.Draw(picture)
    largest = max(_LARGEST_FONT, round(min(picture.size) * _FONT_SHARE))
    sizes = range(largest, _SMALLEST_FONT - 1, -2)
    boxes = ndimage.find_objects(regions + 1)
    for index, (name, color) in shown.items():
        window = boxes[index]
        parts, count = ndimage.label(regions[window] == index)
        areas = np.bincount(parts.ravel(), minlength=count + 1)
        for part, place in enumerate(ndimage.find_objects(parts), start=1):
            if areas[part] < _SMALLEST_FONT**2:
                continue
            corner = [window[axis].start + place[axis].start for axis in (0, 1)]
            _write_name(pen, Room(parts[place] == part), corner, name, color, sizes)


def _write_name(
    pen: ImageDraw.ImageDraw,
    room: "Room",
    corner: Sequence[int],
    name: str,
    color: Color,
    sizes: Sequence[int],
) -> None:
    """Write a name inside a region whose upper left corner (row, column) is given, if it fits."""
    for font_size, text in ((size, text) for size in sizes for text in _layouts(name)):
        left, top, right, bottom = _text_box(text, font_size)
        size = (round(bottom - top) + 2 * _MARGIN, round(right - left) + 2 * _MARGIN)
        found = room.place(*size)
        if found is None:
            continue
        row, column = found
        bright = float(np.dot(color, _BRIGHTNESS)) > 110
        pen.multiline_text(
            (corner[1] + column + _MARGIN - left, corner[0] + row + _MARGIN - top),
            text,
            font=_font(font_size),
            align="center",
            fill=_DARK if bright else _LIGHT,
            stroke_width=1,
            stroke_fill=color,
        )
        return


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=4096)
def _text_box(text: str, size: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a text that is written at (0, 0)."""
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    return pen.multiline_textbbox((0, 0), text, font=_font(size), align="center")


def _layouts(name: str) -> Iterator[str]:
    """The name on one line, and on one line per word."""
    yield name
    if len(words := name.split()) > 1:
        yield "\n".join(words)


class Room:
    """Where boxes fit into a region [H, W]; large regions are searched in steps of some pixels."""

    def __init__(self, region: BoolArray) -> None:
        self._step = -(-max(region.shape) // _SEARCHED_SIDE)
        height, width = (side // self._step for side in region.shape)
        whole = region[: height * self._step, : width * self._step]
        blocks = whole.reshape(height, self._step, width, self._step)
        cells: BoolArray = np.asarray(blocks.all(axis=(1, 3)))
        # Sums over the rectangles from the upper left corner give the sum over any box.
        sums = cells.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
        self._sums = np.pad(sums, ((1, 0), (1, 0)))

    def place(self, height: int, width: int) -> tuple[int, int] | None:
        """(row, column) of a box inside the region, near the middle; None if there is no room."""
        rows, columns = (-(-side // self._step) for side in (height, width))
        sums = self._sums
        if sums[-1, -1] < rows * columns or rows >= len(sums) or columns >= sums.shape[1]:
            return None
        counts = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns]
        fits = np.argwhere(counts + sums[:-rows, :-columns] == rows * columns)
        if not len(fits):
            return None
        row, column = fits[((fits - fits.mean(axis=0)) ** 2).sum(axis=1).argmin()]
        return int(row) * self._step, int(column) * self._step


def _with_legend(picture: Image.Image, colors: Mapping[str, Color]) -> Image.Image:
    """The picture with a strip below: a swatch and a name per word, in as many lines as needed."""
    size = max(12, round(picture.width / 60))
    font, line = _font(size), round(size * 1.8)
    places, x, y = [], size // 2, 0
    for name in sorted(colors):
        width = round(font.getlength(name)) + 3 * size
        if x + width > picture.width and x > size:
            x, y = size // 2, y + line
        places.append((name, x, y))
        x += width
    sheet = Image.new("RGB", (picture.width, picture.height + (y + line if places else 0)), "white")
    sheet.paste(picture)
    pen = ImageDraw.Draw(sheet)
    for name, left, row in places:
        top = picture.height + row + line // 2
        pen.rectangle((left, top - size // 2, left + size, top + size // 2), fill=colors[name])
        pen.text((left + 1.5 * size, top), name, fill=_DARK, font=font, anchor="lm")
    return sheet
