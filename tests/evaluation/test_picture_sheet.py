"""Best and worst images on one sheet, with bounded memory."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.evaluation.picture_sheet import PictureSheet, ScoredImage, shrink

NAMES = ["sky", "sea"]


def scored(score: float, file_name: str = "") -> ScoredImage:
    labels = np.zeros((12, 16), np.uint16)
    labels[6:] = 1
    return ScoredImage(score, file_name or f"{score}.jpg", labels, labels)


def test_only_the_best_and_the_worst_are_kept() -> None:
    sheet = PictureSheet()
    for score in np.random.default_rng(0).permutation(100):
        sheet.offer(scored(float(score)))
    assert [image.score for image in sheet._best] == [99, 98, 97, 96, 95, 94]
    assert [image.score for image in sheet._worst] == [0, 1, 2, 3, 4, 5]


def test_images_without_a_score_are_left_out() -> None:
    sheet = PictureSheet()
    sheet.offer(scored(math.nan))
    assert not sheet._best


def test_an_image_stands_on_the_sheet_once(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    Image.new("RGB", (16, 12), (0, 255, 0)).save(file)
    sheet = PictureSheet()
    sheet.offer(scored(50.0, str(file)))
    sheet.write(tmp_path / "sheet.png", NAMES, "mIoU")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (20 + 2 * 12, 3 * 320, 3)
    assert (pixels[30, 10] == (0, 255, 0)).all()  # the image itself


def test_worst_images_stand_beside_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sheet = PictureSheet()
    for number in range(9):
        sheet.offer(scored(float(number), str(tmp_path / f"{number}.jpg")))
    sheet.write(tmp_path / "sheet.png", NAMES, "mIoU")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (2 * 3 * 320, 6 * (20 + 2 * 12))
    assert "8.jpg does not exist" in caplog.text  # drawn on gray


def test_an_image_of_too_many_bits_is_gray(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "deep.png"
    Image.new("I;16", (16, 12)).save(file)
    sheet = PictureSheet()
    sheet.offer(scored(50.0, str(file)))
    sheet.write(tmp_path / "sheet.png", NAMES, "mIoU")
    assert (tmp_path / "sheet.png").is_file()
    assert "more than 8 bits" in caplog.text


def test_a_sheet_of_an_earlier_evaluation_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"old")
    PictureSheet().write(tmp_path / "sheet.png", NAMES, "mIoU")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("shape", [(1, 1), (160, 7), (161, 7), (3000, 4000)])
def test_maps_are_kept_small(shape: tuple[int, int]) -> None:
    small = shrink(np.full(shape, 846, np.int32))
    assert max(small.shape) <= 160
    assert small.base is None
    assert (small == 846).all()


@pytest.mark.parametrize("names", ["abcdefgh", "hgfedcba", "dahbcgef"])
def test_of_equal_scores_the_names_decide(names: str) -> None:
    """Not the order, which depends on the number of processes."""
    sheet = PictureSheet()
    for name in names:
        sheet.offer(scored(50.0, name))
    assert [image.file_name for image in sheet._best] == list("abcdef")
    assert [image.file_name for image in sheet._worst] == list("abcdef")
