"""Pictures show every region in its word's color, with its name inside and void hatched."""

import itertools

import numpy as np
import pytest
from PIL import ImageFont
from skimage.color import rgb2lab

from maskclippp.visualization import PALETTE, Room, draw_labels, draw_regions, word_colors

NAMES = ["red square, crimson box", "sky"]
# What people without one kind of cone see (Viénot, Brettel and Mollon 1999), of linear RGB.
DICHROMATS = {
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


def blank(height: int, width: int, value: int = 0) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def halves(height: int, width: int) -> np.ndarray:
    labels = np.zeros((height, width), dtype=np.int64)
    labels[:, width // 2 :] = 1
    return labels


def test_regions_take_the_color_of_their_word() -> None:
    picture = np.array(draw_labels(blank(10, 60), halves(10, 60), NAMES, opacity=1.0))
    colors = word_colors(NAMES)
    assert tuple(picture[5, 5]) == colors[0]
    assert tuple(picture[5, 55]) == colors[1]
    assert tuple(picture[5, 30]) == (255, 255, 255)  # the outline between them


def test_a_word_has_one_color_in_all_vocabularies() -> None:
    assert word_colors(["Sky"]) == word_colors(["dog", "sky, clouds"])[1:]
    assert len(set(word_colors([f"word {number}" for number in range(42)]))) == 42
    assert len(word_colors([f"word {number}" for number in range(100)])) == 100


@pytest.mark.parametrize("kind", [None, *DICHROMATS])
def test_the_first_colors_differ_for_everyone(kind: str | None) -> None:
    colors = np.array(PALETTE[:7]) / 255
    if kind is not None:
        seen = np.clip((colors**2.2) @ np.array(DICHROMATS[kind]).T, 0, 1)
        colors = seen ** (1 / 2.2)
    lab = rgb2lab(colors[None])[0]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 8  # 2.3 is the least that people see


def test_what_has_no_class_is_hatched() -> None:
    labels = halves(40, 60)
    labels[labels == 1] = 255
    picture = np.array(draw_labels(blank(40, 60, 90), labels, NAMES[1:], opacity=1.0))
    right = picture[:, 31:].reshape(-1, 3)
    assert {tuple(color) for color in right.tolist()} == {
        (90, 90, 90),
        (20, 20, 20),
        (255, 255, 255),
    }


def test_what_is_asked_for_is_hatched() -> None:
    wrong = halves(40, 60) == 1
    regions = np.zeros((40, 60), dtype=np.int64)
    picture = np.array(
        draw_regions(blank(40, 60, 90), regions, {0: ""}, {0: (0, 90, 0)}, hatched=wrong, opacity=0)
    )
    assert (picture[:, :30] == 90).all()
    assert (picture[:, 30:] == 20).any()


def test_names_are_written_inside_their_regions_only() -> None:
    labels = halves(60, 240)
    labels[:, :8] = 2  # too narrow for a name
    names = ["left", "right", "narrow"]
    named = np.array(draw_labels(blank(60, 240), labels, names, opacity=1.0))
    bare = np.array(draw_labels(blank(60, 240), labels, ["", "", ""], opacity=1.0))
    colors = word_colors(names)
    plain = {index: (np.array(colors[index]) == named).all(axis=2) for index in range(3)}
    assert bare.shape == named.shape
    border = (named == 255).all(axis=2)
    assert (plain[2] | border)[:, :8].all()
    for index in (0, 1):
        inside = ~plain[index] & ~border & (labels == index)
        rows = np.nonzero(inside)[0]
        assert len(rows) > 30
        assert abs(rows.mean() - 30) < 8
        assert not inside[[0, -1]].any()


def test_names_grow_with_the_picture() -> None:
    def ink(scale: int) -> int:
        labels = np.zeros((300, 400), dtype=np.int64)
        picture = draw_labels(blank(300, 400), labels, ["sky"], opacity=1.0, scale=scale)
        return int((np.array(picture) != word_colors(["sky"])[0]).any(axis=2).sum())

    assert ink(3) > 2 * ink(1)


def test_a_box_lies_inside_its_region() -> None:
    region = np.zeros((60, 80), dtype=bool)
    region[10:50, 5:70] = True
    region[10:50, 30:34] = False
    found = Room(region).place(12, 20)
    assert found is not None
    row, column = found
    assert region[row : row + 12, column : column + 20].all()


def test_large_regions_are_searched_coarsely_and_exactly() -> None:
    region = np.zeros((1300, 2000), dtype=bool)
    region[201:333, 701:1102] = True
    row, column = Room(region).place(120, 380) or (0, 0)
    assert region[row : row + 120, column : column + 380].all()


@pytest.mark.parametrize("size", [(10, 66), (41, 10), (200, 200), (60, 80)])
def test_a_box_that_does_not_fit_has_no_place(size: tuple[int, int]) -> None:
    region = np.zeros((60, 80), dtype=bool)
    region[10:50, 5:70] = True
    assert Room(region).place(*size) is None


def test_the_legend_names_every_word_below_the_picture() -> None:
    names = ["a word", "another, with a synonym", "absent"]
    plain = draw_labels(blank(100, 400), halves(100, 400), names)
    picture = draw_labels(blank(100, 400), halves(100, 400), names, legend=True)
    assert picture.width == plain.width
    assert picture.height > plain.height
    strip = {tuple(color) for color in np.array(picture)[plain.height :].reshape(-1, 3).tolist()}
    colors = word_colors(names)
    assert colors[0] in strip
    assert colors[1] in strip
    assert colors[2] not in strip


def test_a_long_legend_takes_several_lines() -> None:
    names = [f"word number {number}" for number in range(30)]
    labels = np.arange(30)[None].repeat(20, axis=0).repeat(10, axis=1)
    picture = draw_labels(blank(20, 300), labels, names, legend=True)
    assert picture.height > 20 + 10 * ImageFont.load_default(12).getbbox("Ag")[3]


def test_a_label_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image is \(4, 5\) pixels, its label map \(5, 4\)"):
        draw_labels(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.int64), NAMES)
