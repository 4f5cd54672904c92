"""Captions as people write them: of the whole picture, incomplete, in varying words.

Only the pre-training of the world's CLIP reads them; no caption says where anything is.
"""

import numpy as np

from maskclippp.data.shapes.scenes import Scene, Segment
from maskclippp.data.shapes.vocabulary import COLORS, GROUNDS, SHAPES, TINTS

OPENINGS = (
    "{}",
    "{}.",
    "a photo of {}.",
    "This is a photo of {}",
    "There is {} in the scene",
    "There is the scene with {}",
    "a photo of {} in the scene",
    "a picture of {}",
)
LINKS = (" and ", ", ", " next to ", " with ", " near ")
SIZES = ("small", "medium", "large")
SIZE_LIMITS = (1300, 3000)  # pixels; up to the first is small, above the second is large


def _choose(words: tuple[str, ...], generator: np.random.Generator) -> str:
    return words[generator.integers(len(words))]


def phrase(segment: Segment, generator: np.random.Generator) -> str:
    """Name one segment, with a random choice of synonyms and of what is said about it."""
    category = segment.category
    colors, forms = (COLORS, SHAPES) if category.is_thing else (TINTS, GROUNDS)
    words = [
        _choose(colors[category.color].words, generator),
        _choose(forms[category.form], generator),
    ]
    if generator.random() < 0.3:
        words.insert(0, SIZES[np.searchsorted(SIZE_LIMITS, segment.area)])
    return " ".join(["the" if generator.random() < 0.1 else "a", *words])


def describe(scene: Scene, generator: np.random.Generator, mention: float = 0.6) -> str:
    """Caption a scene: all its objects, and each ground with probability `mention`.

    At least one segment is named. The order is random and says nothing about places.
    """
    segments = [scene.segments[i] for i in generator.permutation(len(scene.segments))]
    mentioned = [
        s for s in segments if s.category.is_thing or generator.random() < mention
    ] or segments[:1]
    text = phrase(mentioned[0], generator)
    for segment in mentioned[1:]:
        text += _choose(LINKS, generator) + phrase(segment, generator)
    return _choose(OPENINGS, generator).format(text)
