"""Superpixel masks: a partition of any image, the same every time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from maskclippp.generators import SuperpixelSegmentor, build_generator
from tests.tiny_models import random_image, tiny_config


def masks_of(image: Tensor, **options: float) -> Tensor:
    (found,) = SuperpixelSegmentor(**options)([{"image": image}])  # type: ignore[arg-type]
    return found.masks.values


def two_colors(height: int, width: int) -> Tensor:
    """Red on the left, blue on the right."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0, :, : width // 2] = 200
    image[2, :, width // 2 :] = 200
    return image


@pytest.mark.parametrize(
    "size", [(96, 128), (33, 61), (5, 7), (1, 40), (40, 1), (2, 2), (1, 1)], ids=str
)
def test_every_pixel_is_covered_exactly_once(size: tuple[int, int]) -> None:
    masks = masks_of(random_image(*size))
    assert masks.dtype == torch.bool
    assert masks.shape[1:] == size
    assert (masks.sum(dim=0) == 1).all()
    assert masks.any(dim=(1, 2)).all()


def test_the_same_image_gives_the_same_masks() -> None:
    image = random_image(64, 80)
    first = masks_of(image)
    torch.manual_seed(99)
    assert torch.equal(masks_of(image), first)


@pytest.mark.parametrize("color", [0, 128, 255])
def test_a_uniform_image_is_one_mask(color: int) -> None:
    image = torch.full((3, 50, 60), color, dtype=torch.uint8)
    assert masks_of(image).shape == (1, 50, 60)


def test_regions_of_different_color_are_kept_apart() -> None:
    masks = masks_of(two_colors(60, 80))
    left, right = masks[masks[:, 30, 10]], masks[masks[:, 30, 70]]
    assert not (left & right).any()
    # Superpixels on the border may be regions of their own.
    assert left[0, :, :40].float().mean() > 0.8
    assert right[0, :, 40:].float().mean() > 0.8


def test_a_great_threshold_joins_everything() -> None:
    assert len(masks_of(two_colors(60, 80), merge_threshold=1000.0)) == 1


def test_small_regions_join_a_neighbor() -> None:
    image = random_image(60, 80)
    smallest = masks_of(image).sum(dim=(1, 2)).min()
    grown = masks_of(image, min_area=0.02).sum(dim=(1, 2)).min()
    assert smallest < 0.02 * 60 * 80 <= grown


def test_images_of_a_batch_are_independent() -> None:
    generator = SuperpixelSegmentor()
    records = [{"image": random_image(30, 40)}, {"image": two_colors(20, 24)}]
    for record, found in zip(records, generator(records), strict=True):
        assert torch.equal(generator([record])[0].masks.values, found.masks.values)


def test_settings_come_from_the_config() -> None:
    generator = build_generator(
        tiny_config(
            ".SEGMENTOR.NAME", "SuperpixelSegmentor", ".SEGMENTOR.SUPERPIXELS.NUM_SEGMENTS", 7
        )
    )
    assert isinstance(generator, SuperpixelSegmentor)
    assert generator.num_segments == 7


def test_at_least_one_segment_is_asked_for() -> None:
    with pytest.raises(ValueError, match="NUM_SEGMENTS: expected >= 1, found 0"):
        SuperpixelSegmentor(num_segments=0)


def test_a_threshold_of_zero_merges_nothing() -> None:
    """Not even neighbors of the same color, whose distance is just that."""
    image = torch.full((3, 50, 60), 128, dtype=torch.uint8)
    assert len(masks_of(image, merge_threshold=0.0, min_area=0.0, num_segments=12)) > 6


def test_nearest_pairs_are_merged_first_and_a_region_once_per_round() -> None:
    """Grays in steps of 2: the first pair leaves its neighbor too far from the mean."""
    lab = torch.zeros(1, 3, 3).double().numpy()
    lab[0, :, 0] = (0.0, 2.0, 4.0)
    merged = SuperpixelSegmentor(merge_threshold=2.5, min_area=0.0)._merge(np.arange(3)[None], lab)
    assert merged.tolist() == [[0, 0, 1]]
