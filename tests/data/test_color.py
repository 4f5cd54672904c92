"""SSD color changes: recorded draws and the same operations spelt out."""

import random

import cv2
import numpy as np
import pytest
from PIL import Image

from maskclippp.data.mappers.color import SSDColorJitter
from tests.data.real_samples import mapper_cases

TOLERANCE = 2


def plain_jitter(image: np.ndarray, seed: int) -> np.ndarray:
    """Draw and apply in the documented order."""
    draw = random.Random(seed)
    if draw.randrange(2):
        image = clip(image.astype(np.float32) + draw.uniform(-32, 32))
    order = "csh" if draw.randrange(2) else "shc"
    for step in order:
        if not draw.randrange(2):
            continue
        if step == "c":
            image = clip(image.astype(np.float32) * draw.uniform(0.5, 1.5))
            continue
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
        if step == "s":
            hsv[..., 1] = np.clip(hsv[..., 1] * draw.uniform(0.5, 1.5), 0, 255)
        else:
            hsv[..., 0] = (hsv[..., 0] + draw.randint(-18, 18)) % 180
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    return image


def clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def recorded() -> list[tuple[np.ndarray, int, np.ndarray]]:
    """(input, seed, output) of the recorded color changes, in RGB."""
    results = []
    for folder, case in mapper_cases():
        pixels = np.array(Image.open(folder / case["color_aug_input"]))
        for run in case["color_aug"]:
            output = np.array(Image.open(folder / run["output_png"]))
            turn = slice(None, None, -1 if run["img_format"] == "BGR" else 1)
            results.append((pixels[..., turn], run["python_seed"], output[..., turn]))
    return results


def test_outputs_equal_recorded_and_plain_ones() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    runs = [(noise, seed, plain_jitter(noise, seed)) for seed in range(30)] + recorded()
    for pixels, seed, expected in runs:
        random.seed(seed)
        changed = SSDColorJitter()(np.ascontiguousarray(pixels))
        assert changed.dtype == np.uint8
        assert np.abs(changed.astype(int) - expected).max() <= TOLERANCE, seed


@pytest.mark.parametrize("value", [0, 255])
def test_values_stay_in_range(value: int) -> None:
    pixels = np.full((2, 2, 3), value, dtype=np.uint8)
    for seed in range(20):
        random.seed(seed)
        changed = SSDColorJitter()(pixels).astype(int)
        assert np.ptp(changed) == 0, "a gray picture must stay gray, without wrapping around"
        assert changed[0, 0, 0] in range(0, 49) if value == 0 else changed[0, 0, 0] > 100
