"""Pictures show every region in its class's color, with its name in place."""

import numpy as np
import pytest

from maskclippp.visualization import class_color, draw_labels

NAMES = ["red square, crimson box", "sky"]


def test_regions_take_the_color_of_their_class() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[:, 30:] = 1
    picture = np.array(draw_labels(image, labels, NAMES, scale=1, opacity=1.0, min_share=2.0))
    assert picture.shape == image.shape
    assert tuple(picture[5, 5]) == class_color(0)
    assert tuple(picture[5, 55]) == class_color(1)
    assert tuple(picture[5, 30]) == (255, 255, 255)  # the border between them


def test_labels_without_a_class_stay_bare() -> None:
    image = np.full((20, 20, 3), 7, dtype=np.uint8)
    picture = np.array(draw_labels(image, np.full((20, 20), 255), NAMES, scale=1))
    assert (picture == 7).all()


def test_names_are_written_into_large_regions_only() -> None:
    image = np.zeros((60, 120, 3), dtype=np.uint8)
    labels = np.zeros((60, 120), dtype=np.int64)
    plain = np.array(draw_labels(image, labels, NAMES, scale=2, min_share=2.0))
    named = np.array(draw_labels(image, labels, NAMES, scale=2))
    rows, columns = np.nonzero((plain != named).any(axis=2))
    assert len(rows) > 50
    # Deepest inside the region, and within the picture.
    assert abs(rows.mean() - 60) < 12
    assert 0 < columns.min() < columns.max() < 239


def test_a_label_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image is \(4, 5\) pixels, its label map \(5, 4\)"):
        draw_labels(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.int64), NAMES)
