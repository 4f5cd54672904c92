"""The geometric transforms of the train mappers."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskclippp.data.mappers.transforms import (
    ClassIds,
    FixedSizeCrop,
    LargeScaleJitter,
    RandomCrop,
    RandomFlip,
    ResizeShortestEdge,
    Segments,
    pad_to,
    resize_labels,
    shortest_edge_size,
)
from tests.data.real_samples import mapper_cases

# height, width, shortest, longest -> new height, new width, as the published loader rounds them
SHORTEST_EDGE = [
    [2312, 2513, 236, 1793, 236, 257],
    [286, 902, 587, 685, 217, 685],
    [60, 2080, 891, 979, 28, 979],
    [2653, 1211, 593, 1243, 1243, 567],
    [377, 93, 238, 2269, 965, 238],
    [2903, 1789, 137, 1764, 222, 137],
]


def scene(height: int = 30, width: int = 44) -> tuple[Image.Image, ClassIds]:
    """An image whose red channel is the label map."""
    labels = np.arange(height * width).reshape(height, width) % 251
    pixels = np.stack([labels] * 3, axis=-1).astype(np.uint8)
    return Image.fromarray(pixels), torch.from_numpy(labels).as_subclass(ClassIds)


def test_shortest_edge_sizes_equal_the_recorded_ones() -> None:
    rows = list(SHORTEST_EDGE)
    for _, case in mapper_cases():
        rows += case["short_edge_shapes_h_w_size_max_newh_neww"]
    for height, width, shortest, longest, *expected in rows:
        assert list(shortest_edge_size(height, width, shortest, longest)) == expected


def test_the_longer_side_is_never_longer_than_it_may_be() -> None:
    """Not by rounding either: 401 / 300 * 1000 is 1336.67."""
    assert shortest_edge_size(300, 1000, 401, 1336) == (401, 1336)
    assert shortest_edge_size(300, 1000, 401, 1337) == (401, 1337)


def test_shortest_edge_zero_keeps_the_size() -> None:
    assert shortest_edge_size(31, 50, 0, 20) == (31, 50)


@pytest.mark.parametrize(
    "transform",
    [
        RandomFlip("horizontal"),
        RandomFlip("vertical"),
        RandomCrop("absolute", (11, 17)),
        RandomCrop("relative", (0.5, 0.8)),
        RandomCrop("relative_range", (0.3, 0.4)),
        RandomCrop("absolute_range", (9, 25)),
        FixedSizeCrop(20),
    ],
    ids=lambda t: f"{type(t).__name__}-{getattr(t, 'crop_type', getattr(t, 'direction', ''))}",
)
def test_image_and_labels_move_together(transform: torch.nn.Module) -> None:
    for seed in range(8):
        np.random.seed(seed)
        image, labels = transform(*scene())
        assert (np.array(image)[..., 0] == labels.numpy()).all()


def test_same_seed_draws_the_same_transform() -> None:
    transform = LargeScaleJitter(32, 0.5, 2.0)
    sizes = []
    for seed in (4, 4, 5):
        np.random.seed(seed)
        sizes.append(transform(*scene())[0].size)
    assert sizes[0] == sizes[1] != sizes[2]


def test_padding_is_gray_and_labeled_as_asked() -> None:
    image, labels = (pad_to(item, (50, 50), label_padding=255) for item in scene())
    assert image.size == (50, 50)
    assert (np.array(image)[30:] == 128).all()
    assert (labels[:, 44:] == 255).all()
    segments = torch.ones(2, 3).as_subclass(Segments)
    assert pad_to(segments, (2, 5), label_padding=255)[:, 3:].tolist() == [[0, 0], [0, 0]]


def test_extreme_shapes_keep_at_least_one_pixel() -> None:
    image, labels = LargeScaleJitter(16, 0.1, 0.2)(*scene(height=2, width=300))
    assert min(image.size) == 1
    assert tuple(labels.shape) == (image.height, image.width)


def test_large_ids_survive_resizing() -> None:
    labels = torch.tensor([[0, 16_777_215], [258, 16_777_213]])
    for sampling in ("center", "corner"):
        resized = resize_labels(labels, (4, 4), sampling)
        assert (resized == labels.repeat_interleave(2, 0).repeat_interleave(2, 1)).all()


# kind, size, seed, side of a square image -> crop height and width, as detectron2 0.6 draws them;
# on a side of 10^9 it shows which numbers it holds in single precision.
RECORDED_CROPS = [
    ("relative", (0.7, 0.9), 0, 5, (4, 5)),
    ("relative", (0.7, 0.9), 0, 35, (25, 32)),
    ("relative", (0.7, 0.1), 3, 10**9, (700000000, 100000000)),
    ("relative_range", (0.7, 0.7), 3, 10**9, (865239365, 912444343)),
    ("relative_range", (0.1, 0.1), 3, 10**9, (595718101, 737333025)),
    ("absolute_range", (10, 30), 0, 50, (22, 25)),
]


@pytest.mark.parametrize(("kind", "size", "seed", "side", "expected"), RECORDED_CROPS)
def test_crop_sizes_equal_the_recorded_ones(
    kind: str, size: tuple[float, float], seed: int, side: int, expected: tuple[int, int]
) -> None:
    transform = RandomCrop(kind, size)
    np.random.seed(seed)
    assert transform._draw_size(side, side) == expected


def test_category_limit_is_kept_when_some_crop_keeps_it() -> None:
    labels = torch.zeros(40, 40, dtype=torch.int64)
    labels[:, 20:] = 1
    image = Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8))
    transform = RandomCrop("absolute", (16, 16), max_category_share=0.8)
    for seed in range(10):
        np.random.seed(seed)
        _, cropped = transform(image, labels.as_subclass(ClassIds))
        assert 0.2 < cropped.float().mean() < 0.8


def test_category_limit_that_nothing_keeps_gives_the_last_crop() -> None:
    labels = torch.zeros(40, 40, dtype=torch.int64)
    image = Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8))
    _, cropped = RandomCrop("absolute", (16, 16), 0.5)(image, labels.as_subclass(ClassIds))
    assert cropped.shape == (16, 16)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: RandomFlip("sideways"), "INPUT.RANDOM_FLIP"),
        (lambda: ResizeShortestEdge((30,), 99, "range"), "INPUT.MIN_SIZE_TRAIN"),
        (lambda: ResizeShortestEdge((30,), 99, "some"), "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
        (lambda: LargeScaleJitter(64, 2.0, 1.0), "INPUT.MIN_SCALE"),
        (lambda: RandomCrop("square", (1, 1)), "INPUT.CROP.TYPE"),
        (lambda: RandomCrop("relative", (1.5, 1)), "INPUT.CROP.SIZE"),
        (lambda: RandomCrop("absolute", (0.9, 0.9)), "INPUT.CROP.SIZE"),
        (lambda: RandomCrop("absolute_range", (30, 10)), "INPUT.CROP.SIZE: absolute_range"),
    ],
)
def test_bad_configuration_names_its_key(make: object, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("row", "share", "varied"),
    [
        ([0, 0, 0, 1], 0.75, False),  # exactly at the limit
        ([0, 0, 0, 1], 0.76, True),
        ([0, 0, 1, 255], 0.6, False),  # shares are those of labeled pixels
        ([0, 0, 1, 255], 0.7, True),
        ([0, 1, 255, 255, 255], 0.55, True),  # ignored pixels are no category
        ([0, 255, 255, 255], 0.8, False),
    ],
)
def test_the_category_limit_counts_labeled_pixels(
    row: list[int], share: float, *, varied: bool
) -> None:
    transform = RandomCrop("absolute", (16, 16), share, 255)
    assert transform._is_varied(torch.tensor([row])) is varied


def test_a_range_of_sizes_includes_both_ends() -> None:
    resize = ResizeShortestEdge((10, 12), 100, "range")
    drawn = {min(resize(*scene())[0].size) for _ in range(40)}
    assert drawn == {10, 11, 12}
