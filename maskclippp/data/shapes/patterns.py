"""Patterns: functions from pixel coordinates to a blending weight in 0..1 of a second color.

All take float32 coordinate arrays `x`, `y` of equal shape, in pixels, and a random generator; all
return float32 of that shape.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Pattern = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]


def smooth_noise(
    shape: tuple[int, int], cell: tuple[float, float], generator: np.random.Generator
) -> FloatArray:
    """Random values in 0..1 that vary over `cell` = (height, width) pixels."""
    grid = tuple(max(2, round(size / step) + 1) for size, step in zip(shape, cell, strict=True))
    values = generator.random(grid, dtype=np.float32)
    noise = cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(noise, 0, 1, dtype=np.float32)


def plain(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """No second color."""
    return np.zeros_like(x)


def striped(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Parallel stripes."""
    period = generator.uniform(9, 16)
    return ((x % period) < period * generator.uniform(0.3, 0.5)).astype(np.float32)


def dotted(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Round dots on a square lattice."""
    period = generator.uniform(11, 17)
    radius = period * generator.uniform(0.24, 0.32)
    u, v = x % period - period / 2, y % period - period / 2
    return (u * u + v * v < radius * radius).astype(np.float32)


def checkered(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """A chess board."""
    period = generator.uniform(14, 22)
    return (((x % period) < period / 2) ^ ((y % period) < period / 2)).astype(np.float32)


def zigzag(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Chevrons: stripes that turn every half length."""
    period, length = generator.uniform(9, 14), generator.uniform(14, 20)
    bend = np.abs(x % length - length / 2)
    return (((y + bend) % period) < period / 2).astype(np.float32)


def gridded(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Thin crossing lines."""
    period = generator.uniform(9, 13)
    return ((x % period < 2.5) | (y % period < 2.5)).astype(np.float32)


def bricks(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Mortar lines of a brick wall, every other row shifted by half a brick."""
    height = generator.uniform(11, 18)
    width = height * generator.uniform(1.8, 2.4)
    row = np.floor(y / height)
    shifted = x + (row % 2) * (width / 2)
    return ((y % height < 2) | (shifted % width < 2)).astype(np.float32)


def waves(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Wavy, soft, horizontal bands."""
    period, length = generator.uniform(10, 16), generator.uniform(28, 48)
    phase = generator.uniform(0, 2 * np.pi)
    bend = generator.uniform(2, 4) * np.sin(x * (2 * np.pi / length) + phase)
    return (0.5 + 0.5 * np.sin((y + bend) * (2 * np.pi / period))).astype(np.float32)


def grass(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Thin upright blades."""
    height, width = x.shape
    return smooth_noise((height, width), (12.0, 2.0), generator)


def clouds(x: FloatArray, y: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Large soft blobs."""
    height, width = x.shape
    blobs = smooth_noise((height, width), (18.0, 34.0), generator)
    return np.clip((blobs - 0.45) * 4, 0, 1, dtype=np.float32)


OBJECT_PATTERNS: dict[str, Pattern] = {
    "plain": plain,
    "striped": striped,
    "dotted": dotted,
    "checkered": checkered,
    "zigzag": zigzag,
    "gridded": gridded,
}
GROUND_PATTERNS: dict[str, Pattern] = {
    "brick wall": bricks,
    "wavy water": waves,
    "grassy meadow": grass,
    "cloudy sky": clouds,
}
