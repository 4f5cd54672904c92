"""Pictures of label maps: errors are hatched, and a class has one color."""

import numpy as np

from shapes.pictures import SCALE, draw_segments

NAMES = ("gray cloudy sky", "red dotted circle")
COLORS = ((200, 200, 200), (220, 30, 30))


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
    assert (row < 30).all(axis=1)[:14].any()
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
