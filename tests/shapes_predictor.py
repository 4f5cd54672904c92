"""The built-in model and a drawn scene, for tests of what people do with both."""

import functools

import numpy as np
import numpy.typing as npt

from maskclippp import Predictor
from maskclippp.data.shapes.scenes import Scene, draw_scene

WORDS = ["red dotted circle, crimson spotted disc", "blue striped square", "gray brick wall"]


@functools.cache
def scene(seed: int = 0) -> Scene:
    return draw_scene(np.random.default_rng(seed))


def picture(seed: int = 0) -> npt.NDArray[np.uint8]:
    """RGB [192, 256, 3]."""
    return scene(seed).image


def words_of_scene(seed: int = 0) -> list[str]:
    """The classes that are in the scene, the right answer."""
    return [", ".join(category.names) for category in {s.category for s in scene(seed).segments}]


@functools.cache
def shapes_predictor() -> Predictor:
    """Shared by all tests: set the words first."""
    return Predictor.from_pretrained("shapes", device="cpu")
