"""The color changes of the SSD detector (Liu et al., 2016), as in the published training."""

import random

import cv2
import numpy as np
import numpy.typing as npt

ByteImage = npt.NDArray[np.uint8]


class SSDColorJitter:
    """Brightness, contrast, saturation and hue, each changed with probability 1/2.

    Brightness comes first; then, with equal probability, contrast-saturation-hue or
    saturation-hue-contrast. Each result is clipped to 0..255 and truncated to 8 bit.
    All draws come from Python's global generator.
    """

    BRIGHTNESS = 32.0
    CONTRAST = (0.5, 1.5)
    SATURATION = (0.5, 1.5)
    HUE = 18

    def __call__(self, image: ByteImage) -> ByteImage:
        """Change an RGB image, uint8 [h, w, 3]; a new array is returned."""
        image = self._brightness(image)
        if random.randrange(2):
            return self._hue(self._saturation(self._contrast(image)))
        return self._contrast(self._hue(self._saturation(image)))

    def _brightness(self, image: ByteImage) -> ByteImage:
        if not random.randrange(2):
            return image
        return _to_bytes(image + np.float32(random.uniform(-self.BRIGHTNESS, self.BRIGHTNESS)))

    def _contrast(self, image: ByteImage) -> ByteImage:
        if not random.randrange(2):
            return image
        return _to_bytes(image * np.float32(random.uniform(*self.CONTRAST)))

    def _saturation(self, image: ByteImage) -> ByteImage:
        if not random.randrange(2):
            return image
        hsv = _to_hsv(image)
        factor = np.float32(random.uniform(*self.SATURATION))
        hsv[..., 1] = _to_bytes(hsv[..., 1] * factor)
        return _to_rgb(hsv)

    def _hue(self, image: ByteImage) -> ByteImage:
        if not random.randrange(2):
            return image
        hsv = _to_hsv(image)
        shift = random.randint(-self.HUE, self.HUE)
        # OpenCV keeps the hue of 8-bit images in half degrees: 0..179.
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + shift) % 180
        return _to_rgb(hsv)


def _to_bytes(values: npt.NDArray[np.floating]) -> ByteImage:
    return values.clip(0, 255).astype(np.uint8)


def _to_hsv(rgb: ByteImage) -> ByteImage:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)


def _to_rgb(hsv: ByteImage) -> ByteImage:
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)
