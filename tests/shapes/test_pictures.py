"""Pictures of label maps: names lie inside their segments, errors are hatched."""

import numpy as np
import pytest

from shapes.pictures import HATCH_PERIOD, LABEL_MARGIN, SCALE, draw_segments, place_box

NAMES = ("gray cloudy sky", "red dotted circle")
COLORS = ((200, 200, 200), (220, 30, 30))


def test_a_box_lies_inside_its_region() -> None:
    region = np.zeros((60, 80), dtype=bool)
    region[10:50, 5:70] = True
    region[10:50, 30:34] = False
    center = place_box(region, 20, 12)
    assert center is not None
    x, y = center
    assert region[y - 6 : y + 6, x - 10 : x + 10].all()
    assert not region[:, 30:34].any()
    assert abs(x - 32) > 10 + LABEL_MARGIN - 2


@pytest.mark.parametrize("size", [(66, 10), (10, 41), (200, 200)])
def test_a_box_that_does_not_fit_has_no_place(size: tuple[int, int]) -> None:
    region = np.zeros((60, 80), dtype=bool)
    region[10:50, 5:70] = True
    assert place_box(region, *size) is None


def test_right_pixels_are_not_hatched_and_wrong_ones_are() -> None:
    image = np.full((40, 60, 3), 128, dtype=np.uint8)
    truth = np.zeros((40, 60), dtype=np.int64)
    labels = truth.copy()
    labels[:, 30:] = 1
    picture = np.asarray(draw_segments(image, labels, truth, ("a b", "c d"), COLORS))
    assert picture.shape == (40 * SCALE, 60 * SCALE, 3)
    dark = (picture < 30).all(axis=2)
    wrong = np.zeros_like(dark)
    wrong[:, 30 * SCALE :] = True
    row = picture[0, 30 * SCALE + 2 :]
    assert (row < 30).all(axis=1)[:HATCH_PERIOD].any()
    assert not dark[0, : 30 * SCALE].any()
    right = np.asarray(draw_segments(image, labels, labels, ("a b", "c d"), COLORS))
    assert not (right[0] < 30).all(axis=1).any()


def test_a_class_has_one_color_in_all_pictures() -> None:
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    first = np.zeros((8, 8), dtype=np.int64)
    second = np.ones((8, 8), dtype=np.int64)
    second[:, :4] = 0
    pictures = [np.asarray(draw_segments(image, m, m, NAMES, COLORS)) for m in (first, second)]
    assert np.array_equal(pictures[0][0, 0], pictures[1][0, 0])
