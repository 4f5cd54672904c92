"""How much is held of many masks, and what EoMT's image processor is told."""

from types import SimpleNamespace

import pytest

from maskclippp.generators.transformers_masks import SquareImages, _affordable
from maskclippp.generators.transformers_segmentor import classes_of_labels

MOST = 2**28


@pytest.mark.parametrize("masks", [0, 1, 200])
def test_few_masks_have_the_size_of_the_result(masks: int) -> None:
    assert _affordable(masks, (1000, 1300)) == (1000, 1300)


@pytest.mark.parametrize("size", [(4000, 8000), (8000, 4000)])
def test_many_masks_are_as_large_as_memory_allows(size: tuple[int, int]) -> None:
    height, width = _affordable(200, size)
    assert 200 * height * width <= MOST < 200 * (height + 1) * (width + 1)
    assert width / height == pytest.approx(size[1] / size[0], rel=0.01)


def test_no_side_vanishes() -> None:
    assert min(_affordable(MOST, (3, 5000))) == 1


def test_only_whole_images_are_padded_to_squares() -> None:
    for splits, options in ((False, {"do_pad": True}), (True, {})):
        size = {"shortest_edge": 64, "longest_edge": None}
        assert SquareImages(SimpleNamespace(do_split_image=splits, size=size)).options == options


def test_labels_are_in_the_order_of_their_numbers() -> None:
    classes = classes_of_labels({10: "c", 9: "b", 0: "a"}).classes
    assert [names[0] for names in classes] == ["a", "b", "c"]
