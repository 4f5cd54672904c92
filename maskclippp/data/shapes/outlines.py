"""Outlines of the six shapes and their rasterization."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskclippp.errors import InputError

FloatArray = NDArray[np.float32]

# Of the upright shape, in radians; a tiny encoder learns full turns too slowly.
LARGEST_TURN = np.deg2rad(25)


@dataclass(frozen=True)
class Raster:
    """A shape on the pixel grid, cut at the scene's border.

    `rows`, `columns` are the slices of the scene it lies in, `inside` bool [h, w] the shape within
    them, and `x`, `y` float32 [h, w] these pixels' coordinates in the turned frame of the shape.
    """

    rows: slice
    columns: slice
    inside: NDArray[np.bool_]
    x: FloatArray
    y: FloatArray


def _round(corners: int, first_angle: float = 0.0) -> FloatArray:
    angles = first_angle + np.arange(corners) * (2 * np.pi / corners)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)


def outline(shape: str, generator: np.random.Generator) -> FloatArray:
    """Corner points [P, 2] of a shape of radius about 1 around the origin."""
    if shape in ("circle", "ring"):
        return _round(48)
    if shape == "square":
        return 1.2 * _round(4, np.pi / 4)
    if shape == "triangle":
        return 1.2 * _round(3, -np.pi / 2)
    if shape == "star":
        points = 1.2 * _round(10, -np.pi / 2)
        points[1::2] *= generator.uniform(0.38, 0.48)
        return points
    if shape == "cross":
        arm = generator.uniform(0.28, 0.38)
        corners = np.array([(arm, arm), (1.1, arm), (1.1, -arm)], dtype=np.float32)
        # Four clockwise quarter turns of one arm, in the order in which the outline runs.
        arms = [corners]
        for _ in range(3):
            corners = np.stack((corners[:, 1], -corners[:, 0]), axis=1)
            arms.append(corners)
        return np.concatenate(arms)
    raise InputError(f"no outline for the shape {shape!r}")


def rasterize(
    shape: str,
    center: tuple[float, float],
    radius: float,
    size: tuple[int, int],
    generator: np.random.Generator,
) -> Raster:
    """Turn and stretch a shape at random and put it at `center` = (x, y) of a scene of `size`.

    `radius` is in pixels, `size` is (height, width).
    """
    angle = generator.uniform(-LARGEST_TURN, LARGEST_TURN)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    stretch = np.array([radius, radius * generator.uniform(0.75, 1.0)], dtype=np.float32)
    turn = np.array([[cosine, sine], [-sine, cosine]], dtype=np.float32)
    points = (outline(shape, generator) * stretch) @ turn + np.asarray(center, dtype=np.float32)

    limit = np.array([size[1], size[0]])
    low = np.clip(np.floor(points.min(axis=0)), 0, limit - 1).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 1, low + 1, limit).astype(int)
    inside = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
    cv2.fillPoly(inside, [np.rint(points - low).astype(np.int32)], 1)
    if shape == "ring":
        hole = (points - center) * generator.uniform(0.42, 0.56) + center
        cv2.fillPoly(inside, [np.rint(hole - low).astype(np.int32)], 0)

    across = np.arange(low[0], high[0], dtype=np.float32) - np.float32(center[0])
    down = (np.arange(low[1], high[1], dtype=np.float32) - np.float32(center[1]))[:, None]
    return Raster(
        rows=slice(int(low[1]), int(high[1])),
        columns=slice(int(low[0]), int(high[0])),
        inside=inside.astype(bool),
        x=cosine * across + sine * down,
        y=cosine * down - sine * across,
    )
