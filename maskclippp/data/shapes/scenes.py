"""Draw a scene: two or three grounds, several overlapping objects, dirt and uneven light.

The annotation is exact: a pixel belongs to the object or ground whose paint is visible there.
(Specks of dirt and the light lie over everything and change no annotation, as on a photograph.)
"""

import colorsys
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from maskclippp.data.shapes.outlines import rasterize
from maskclippp.data.shapes.patterns import GROUND_PATTERNS, OBJECT_PATTERNS, smooth_noise
from maskclippp.data.shapes.vocabulary import (
    CLASS_BY_PARTS,
    COLORS,
    GROUNDS,
    PATTERN_OF_SHAPE,
    SHAPES,
    TINTS,
    Color,
    ShapesClass,
)

MIN_VISIBLE_SHARE = 0.4  # of the area that an object would show if nothing lay over it
MIN_OBJECT_AREA = 500  # pixels inside the scene
PLACING_ATTEMPTS = 8
# How far a pattern's second color goes from the paint towards black or white.
GROUND_CONTRAST = (0.2, 0.4)
OBJECT_CONTRAST = (0.4, 0.65)


@dataclass(frozen=True)
class SceneStyle:
    """Size of a scene and radius of its objects in pixels, numbers of objects and specks.

    The centers of objects keep `margin` (a share of the sides) from the border; `colors` are the
    color words of objects. `one_ground` fills the scene with a single ground, `seen_only` shows
    no class that is unseen in fine-tuning.
    """

    height: int = 192
    width: int = 256
    objects: tuple[int, int] = (3, 6)
    radius: tuple[float, float] = (24.0, 50.0)
    specks: tuple[int, int] = (4, 12)
    margin: float = 0.06
    colors: tuple[str, ...] = tuple(COLORS)
    one_ground: bool = False
    seen_only: bool = False


@dataclass(frozen=True)
class Segment:
    """One region: its value in the scene's map (from 1), class, area in pixels."""

    id: int
    category: ShapesClass
    area: int


@dataclass(frozen=True)
class Scene:
    """`image` uint8 [H, W, 3] RGB; `segment_ids` int32 [H, W]: for each pixel a segment's id."""

    image: NDArray[np.uint8]
    segment_ids: NDArray[np.int32]
    segments: tuple[Segment, ...]


def _paint(color: Color, generator: np.random.Generator) -> NDArray[np.float32]:
    """A random RGB value (0..255) that the color's word describes."""
    hue = generator.uniform(*color.hue) / 360 % 1
    saturation, value = generator.uniform(*color.saturation), generator.uniform(*color.value)
    return np.asarray(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255


def _textured(
    paint: NDArray[np.float32],
    weight: NDArray[np.float32],
    contrast: tuple[float, float],
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Colors [P, 3] of P pixels: a paint and, as the pattern says, its dark or pale variant."""
    target = np.float32(255 if generator.random() < 0.5 else 0)
    difference = (target - paint) * np.float32(generator.uniform(*contrast))
    return paint + weight[..., None] * difference


class _Canvas:
    """A scene while it is drawn; `owner` [H, W] numbers its parts in the order of drawing."""

    def __init__(self, style: SceneStyle, generator: np.random.Generator) -> None:
        self.style = style
        self.generator = generator
        self.image = np.empty((style.height, style.width, 3), dtype=np.float32)
        self.owner = np.zeros((style.height, style.width), dtype=np.int32)
        self.parts: list[ShapesClass] = []
        self.full_areas: list[int] = []  # of objects without what covers them; 0 for grounds
        self.visible_areas: list[int] = []

    def may_show(self, words: tuple[str, str]) -> bool:
        """Whether the style allows the class with these two words."""
        return not self.style.seen_only or CLASS_BY_PARTS[words].is_seen

    def draw_grounds(self) -> None:
        """Fill the scene with one ground, or with two or three above each other."""
        generator, (height, width) = self.generator, self.owner.shape
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        wobble = np.sin(x * generator.uniform(0.03, 0.08) + generator.uniform(0, 2 * np.pi))
        tilt = generator.uniform(-0.25, 0.25) * (x - width / 2)
        depth = y[:, None] - (tilt + generator.uniform(0, 6) * wobble)
        edges = [] if self.style.one_ground else [height * generator.uniform(0.3, 0.7)]
        if edges and generator.random() < 0.3:
            edges.append(edges[0] + height * generator.uniform(0.2, 0.3))
        layer = np.zeros_like(self.owner, dtype=np.int8)
        for edge in edges:
            layer += depth > edge

        pairs = [pair for pair in product(TINTS, GROUNDS) if self.may_show(pair)]
        for choice in generator.choice(len(pairs), len(edges) + 1, replace=False):
            tint, ground = pairs[choice]
            mask = layer == len(self.parts)
            touched = np.flatnonzero(mask.any(axis=1))
            # Patterns are computed for the band of rows that the ground touches only.
            band = slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0, 1)
            inside = mask[band]
            columns, rows = np.meshgrid(x, y[band])
            weight = GROUND_PATTERNS[ground](columns, rows, generator)
            paint = _paint(TINTS[tint], generator)
            colors = _textured(paint, weight[inside], GROUND_CONTRAST, generator)
            self.image[band][inside] = colors
            self.owner[band][inside] = len(self.parts)
            self.parts.append(CLASS_BY_PARTS[tint, ground])
            self.full_areas.append(0)
            self.visible_areas.append(int(inside.sum()))

    def draw_object(self) -> None:
        """Draw one object where it hides no other too much; nothing if there is no such place."""
        style, generator = self.style, self.generator
        while True:
            color, shape = (
                list(words)[generator.integers(len(words))] for words in (style.colors, SHAPES)
            )
            if self.may_show((color, shape)):
                break
        for _ in range(PLACING_ATTEMPTS):
            center = (
                generator.uniform(style.margin, 1 - style.margin) * style.width,
                generator.uniform(style.margin, 1 - style.margin) * style.height,
            )
            radius = generator.uniform(*style.radius)
            raster = rasterize(shape, center, radius, self.owner.shape, generator)
            area = int(raster.inside.sum())
            covered = self.owner[raster.rows, raster.columns][raster.inside]
            left = np.array(self.visible_areas) - np.bincount(covered, minlength=len(self.parts))
            if area >= MIN_OBJECT_AREA and np.all(
                left >= MIN_VISIBLE_SHARE * np.array(self.full_areas)
            ):
                break
        else:
            return
        weight = OBJECT_PATTERNS[PATTERN_OF_SHAPE[shape]](raster.x, raster.y, generator)
        paint = _paint(COLORS[color], generator)
        colors = _textured(paint, weight[raster.inside], OBJECT_CONTRAST, generator)
        self.image[raster.rows, raster.columns][raster.inside] = colors
        self.owner[raster.rows, raster.columns][raster.inside] = len(self.parts)
        self.parts.append(CLASS_BY_PARTS[color, shape])
        self.full_areas.append(area)
        self.visible_areas = [*left.tolist(), area]

    def add_dirt_and_light(self) -> None:
        """Specks of any color, uneven light and sensor noise; no annotation changes."""
        generator, (height, width) = self.generator, self.owner.shape
        for _ in range(generator.integers(*self.style.specks, endpoint=True)):
            center = (int(generator.integers(width)), int(generator.integers(height)))
            shade = generator.uniform(0, 255, 3).tolist()
            cv2.circle(self.image, center, int(generator.integers(2, 5)), shade, cv2.FILLED)
        light = 0.7 + 0.5 * smooth_noise((height, width), (height / 2, width / 2), generator)
        self.image *= light[..., None]
        noise = generator.normal(0, 4, (height // 2, width // 2, 3)).astype(np.float32)
        self.image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)

    def finish(self) -> Scene:
        """Number the visible parts from 1 and round the colors."""
        segment_ids = np.zeros(len(self.parts), dtype=np.int32)
        segments: list[Segment] = []
        for part, area in enumerate(self.visible_areas):
            if area:
                segments.append(Segment(len(segments) + 1, self.parts[part], area))
                segment_ids[part] = len(segments)
        image = np.clip(np.rint(self.image), 0, 255).astype(np.uint8)
        return Scene(image, segment_ids[self.owner], tuple(segments))


def draw_scene(generator: np.random.Generator, style: SceneStyle | None = None) -> Scene:
    """Draw one scene; equal generator states give equal scenes."""
    canvas = _Canvas(style or SceneStyle(), generator)
    canvas.draw_grounds()
    for _ in range(generator.integers(*canvas.style.objects, endpoint=True)):
        canvas.draw_object()
    canvas.add_dirt_and_light()
    return canvas.finish()
