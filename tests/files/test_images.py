"""Reading images and label files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.errors import UnreadableFileError
from maskclippp.files.images import (
    allow_pixels,
    decode_image,
    read_image,
    read_image_size,
    read_label_map,
    read_panoptic_ids,
)


def test_sixteen_bit_labels(tmp_path: Path) -> None:
    labels = np.array([[0, 846, 65535]], dtype=np.uint16)
    Image.fromarray(labels).save(tmp_path / "labels.tif")
    assert read_label_map(tmp_path / "labels.tif").tolist() == labels.tolist()


def test_palette_png_gives_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 5, 254]], dtype=np.uint8)).convert("P")
    picture.putpalette([7] * 768)
    picture.save(tmp_path / "labels.png")
    assert read_label_map(tmp_path / "labels.png").tolist() == [[0, 5, 254]]


def test_gray_image_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 9, dtype=np.uint8)).save(tmp_path / "gray.png")
    assert np.array(read_image(tmp_path / "gray.png")).tolist() == [[[9, 9, 9]] * 3] * 2


def test_panoptic_ids_use_all_three_channels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3]]], dtype=np.uint8)).save(tmp_path / "ids.png")
    assert read_panoptic_ids(tmp_path / "ids.png").tolist() == [[1 + 2 * 256 + 3 * 65536]]


@pytest.mark.parametrize("read", [read_image, read_image_size, read_label_map, read_panoptic_ids])
def test_missing_file_is_named(read: object) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png does not exist"):
        read("nowhere.png")  # type: ignore[operator]


@pytest.mark.parametrize("read", [read_image, read_image_size, read_label_map, read_panoptic_ids])
def test_file_that_is_no_image_is_named(read: object, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(OSError, match=r"text\.png cannot be read"):
        read(tmp_path / "text.png")  # type: ignore[operator]


@pytest.mark.parametrize("read", [read_image, read_panoptic_ids])
def test_truncated_file_is_named(read: object, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(OSError, match=r"cut\.png cannot be read"):
        read(tmp_path / "cut.png")  # type: ignore[operator]


def test_label_map_with_colors_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(tmp_path / "ids.png")
    with pytest.raises(ValueError, match=r"ids\.png: expected one channel"):
        read_label_map(tmp_path / "ids.png")


def test_gray_panoptic_map_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "ids.png")
    with pytest.raises(ValueError, match=r"ids\.png: expected an RGB PNG"):
        read_panoptic_ids(tmp_path / "ids.png")


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_image_of_more_than_eight_bits_is_refused(kind: type, tmp_path: Path) -> None:
    """Pillow would cut its values off at 255."""
    Image.fromarray(np.full((2, 3), 300, dtype=kind)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif has more than 8 bits per channel \(mode [IF]"):
        read_image(tmp_path / "deep.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_image_of_eight_bits_becomes_rgb(mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).convert(mode).save(tmp_path / "image.tif")
    assert read_image(tmp_path / "image.tif").mode == "RGB"


def test_label_map_of_fractions_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 1.5, dtype=np.float32)).save(tmp_path / "labels.tif")
    with pytest.raises(ValueError, match=r"labels\.tif: expected integers, found float32"):
        read_label_map(tmp_path / "labels.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_image(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.new("RGB", (5, 3)).save(path, exif=exif)
    image = read_image(path)
    assert read_image_size(path) == (image.height, image.width)
    assert read_image_size(path) == ((5, 3) if orientation > 4 else (3, 5))


def test_image_that_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for read in (read_image, read_image_size):
        with pytest.raises(OSError, match=r"large\.png .*exceeds limit .* INPUT.MAX_IMAGE_PIXELS"):
            read(tmp_path / "large.png")


@pytest.mark.parametrize("damage", [slice(0, -30), slice(100, None)])
def test_the_content_of_a_file_is_read_like_the_file(tmp_path: Path, damage: slice) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(np.arange(90, dtype=np.uint8).reshape(5, 6, 3)).save(file)
    content = file.read_bytes()
    assert np.array_equal(decode_image(content, "a.png"), read_image(file))
    file.write_bytes(content[damage])
    with pytest.raises(UnreadableFileError) as of_file:
        read_image(file)
    with pytest.raises(UnreadableFileError) as of_content:
        decode_image(content[damage], str(file))
    assert str(of_content.value) == str(of_file.value)


def test_label_maps_of_one_bit_are_read(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "map.png")
    assert read_label_map(tmp_path / "map.png").tolist() == np.eye(4).tolist()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_pixels_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored afterwards
    allow_pixels(100)
    for height in (10, 11):
        Image.new("RGB", (10, height)).save(tmp_path / f"{height}.png")
    assert read_image(tmp_path / "10.png").size == (10, 10)
    with pytest.raises(UnreadableFileError, match=r"11\.png.*INPUT\.MAX_IMAGE_PIXELS"):
        read_image(tmp_path / "11.png")


def test_label_maps_of_lossy_formats_are_refused(tmp_path: Path) -> None:
    """Several pictures in one JPEG file (MPO), as cameras write them, are JPEG as well."""
    labels = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    for name, format, options in (
        ("map.png", "JPEG", {}),
        ("map.tif", "MPO", {"save_all": True, "append_images": [labels]}),
    ):
        labels.save(tmp_path / name, format, **options)
        with pytest.raises(UnreadableFileError, match=rf"it is a {format} file, whose compression"):
            read_label_map(tmp_path / name)
