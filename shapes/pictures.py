"""Label maps as pictures of the report: colors over gray scenes, errors hatched."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskclippp.visualization import Color, draw_regions

UInt8Array = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.int64]

SCALE = 2  # pixels of the picture per pixel of the scene
OPACITY = 0.7  # of the class colors over the gray image


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
    gray = image.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8)
    return draw_regions(
        gray,
        labels,
        dict(enumerate(names)),
        dict(enumerate(colors)),
        hatched=(labels != truth) & (labels >= 0) & (labels < len(names)),
        scale=SCALE,
        opacity=OPACITY,
    )
