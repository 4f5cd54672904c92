"""Every kind of picture becomes upright 8-bit RGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.files.images import read_image
from maskclippp.predictor.images import as_pillow, images_of

GRADIENT = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
COLORS = np.stack([GRADIENT, GRADIENT[::-1], np.full_like(GRADIENT, 40)], axis=-1)


def read(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    return np.asarray(read_image(path, reduce_depth=True))


def test_gray_palette_opacity_and_depth(tmp_path: Path) -> None:
    gray = np.stack([GRADIENT] * 3, axis=-1)
    assert np.array_equal(read(Image.fromarray(GRADIENT), tmp_path / "gray.png"), gray)
    palette = Image.fromarray(COLORS).quantize(48)
    assert np.array_equal(read(palette, tmp_path / "palette.png"), palette.convert("RGB"))
    opaque = np.dstack([COLORS, GRADIENT])
    assert np.array_equal(read(Image.fromarray(opaque), tmp_path / "rgba.png"), COLORS)
    deep = Image.fromarray(GRADIENT.astype(np.uint16) << 8 | 7)
    assert np.array_equal(read(deep, tmp_path / "deep.png"), gray)
    printed = Image.fromarray(COLORS).convert("CMYK")
    assert np.array_equal(read(printed, tmp_path / "cmyk.tif"), printed.convert("RGB"))


@pytest.mark.parametrize("in_memory", [False, True])
def test_pictures_are_turned_upright(in_memory: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(COLORS).save(path, exif=exif)
    upright = as_pillow(Image.open(path)) if in_memory else read_image(path)
    assert np.array_equal(np.asarray(upright), np.rot90(COLORS, -1))


def test_unknown_depths_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif has more than 8 bits per channel"):
        read_image(tmp_path / "float.tif", reduce_depth=True)


@pytest.mark.parametrize(
    "array", [GRADIENT, GRADIENT[..., None], COLORS, np.dstack([COLORS, GRADIENT])]
)
def test_arrays_may_be_gray_or_have_opacity(array: np.ndarray) -> None:
    expected = COLORS if array.ndim == 3 and array.shape[2] > 1 else np.stack([GRADIENT] * 3, -1)
    assert np.array_equal(np.asarray(as_pillow(array)), expected)


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"has no image; expected names that end with"):
        images_of(tmp_path)
