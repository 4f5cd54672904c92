"""Example pictures: drawn scenes of the shapes world, which the built-in model knows."""

from pathlib import Path

import numpy as np
from PIL import Image

from maskclippp.data.shapes.scenes import draw_scene

_SEEDS = (0, 3, 5)
_SYNONYMS = 2


def draw_examples(folder: Path) -> list[tuple[Path, str]]:
    """Write the pictures; each with the words of what it shows, one class per line."""
    examples = []
    for number, seed in enumerate(_SEEDS, start=1):
        scene = draw_scene(np.random.default_rng(seed))
        path = folder / f"scene_{number}.png"
        Image.fromarray(scene.image).save(path)
        categories = dict.fromkeys(segment.category for segment in scene.segments)
        lines = [", ".join(category.names[:_SYNONYMS]) for category in categories]
        examples.append((path, "\n".join(lines)))
    return examples
