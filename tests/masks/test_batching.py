"""Ragged images and masks become one padded batch, in step with each other."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.masks.batching import (
    DOWNSAMPLE_METHODS,
    InputFormat,
    PaddedBatch,
    Resize,
    call_by_size,
    downsample_masks,
    pad_batch,
    pad_ragged,
    padded_size,
    resize_bilinear,
    unpad_ragged,
)
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record

CPU = torch.device("cpu")
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)


def make_batch(
    sizes: list[tuple[int, int]], counts: list[int], resize: Resize | None = None, divisor: int = 0
) -> PaddedBatch:
    images = [torch.rand(3, *size) * 255 for size in sizes]
    pairs = zip(counts, sizes, strict=True)
    masks = [SoftMasks(torch.rand(count, *size) > 0.5) for count, size in pairs]
    return pad_batch(images, masks, InputFormat(MEAN, STD, divisor), resize or Resize(), CPU)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        (Resize("none"), (30, 47)),
        (Resize("short", 17), (17, 26)),  # 47 * 17 / 30 = 26.6: rounded down
        (Resize("square", 20), (20, 20)),
        (Resize("rel", scale=0.5), (15, 23)),
    ],
)
def test_resize_types(resize: Resize, expected: tuple[int, int]) -> None:
    assert resize(torch.rand(3, 30, 47)).shape[-2:] == expected


def test_short_takes_the_other_side_in_portrait_images() -> None:
    assert Resize("short", 17)(torch.rand(3, 47, 30)).shape[-2:] == (26, 17)
    assert Resize("short", 16)(torch.rand(3, 30, 30)).shape[-2:] == (16, 16)


@pytest.mark.parametrize(
    ("kind", "size", "scale", "message"),
    [
        ("long", 0, 1.0, "RESIZE_TYPE: 'long' is not one of"),
        ("short", 0, 1.0, "IMAGE_SIZE: expected a positive number of pixels, found 0"),
        ("rel", 0, 0.0, "IMAGE_SCALE: expected a positive number, found 0.0"),
    ],
)
def test_impossible_resizing_is_refused(kind: str, size: int, scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resize(kind, size, scale)


@pytest.mark.parametrize("divisor", [0, 1, 32])
def test_images_are_normalized_and_padded_with_zeros(divisor: int) -> None:
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in [(20, 40), (33, 9)]]
    batch = pad_batch(images, None, InputFormat(MEAN, STD, divisor), Resize(), CPU)
    expected = (64, 64) if divisor == 32 else (33, 40)
    assert batch.images.shape == (2, 3, *expected)
    assert batch.image_sizes == [(20, 40), (33, 9)]
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    for image, padded in zip(images, batch.images, strict=True):
        height, width = image.shape[-2:]
        normal = (image.float() - mean[:, None, None]) / std[:, None, None]
        assert_close(padded[:, :height, :width], normal)
        assert not padded[:, height:].any()
        assert not padded[:, :, width:].any()


def test_masks_are_padded_in_step_with_their_image() -> None:
    batch = make_batch([(20, 40), (33, 9)], [2, 3], divisor=8)
    masks = batch.padded_masks()
    assert masks.shape == (5, 40, 40)
    assert_close(masks[0, :20, :40], batch.masks[0].values[0].float())
    assert not masks[:2, 20:].any()
    assert not masks[2:, :, 9:].any()
    assert batch.image_of_mask.tolist() == [0, 0, 1, 1, 1]


def test_masks_are_resized_with_their_image() -> None:
    batch = make_batch([(20, 40)], [2], Resize("short", 10))
    assert batch.image_sizes == [(10, 20)]
    assert batch.padded_masks().shape == (2, 10, 20)


def test_masks_of_another_resolution_span_the_image() -> None:
    image, mask = torch.rand(3, 20, 40), torch.zeros(1, 5, 10)
    mask[:, :, 5:] = 1
    batch = pad_batch([image], [SoftMasks(mask)], InputFormat(MEAN, STD), Resize(), CPU)
    masks = batch.padded_masks()
    assert masks[0, :, 19].max() < 0.5 < masks[0, :, 20].min()


def test_masks_that_fit_keep_their_dtype() -> None:
    """A boolean mask takes a quarter of the memory of floats, also in transfer."""
    assert make_batch([(20, 40)], [2]).masks[0].values.dtype == torch.bool


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [2, 0]])
@pytest.mark.parametrize("method", DOWNSAMPLE_METHODS)
def test_images_without_masks(counts: list[int], method: str) -> None:
    batch = make_batch([(20, 40), (33, 9)], counts, Resize("short", 16), divisor=32)
    assert batch.masks_per_image == counts
    assert batch.padded_masks().shape[0] == sum(counts)
    grid = batch.downsampled_masks((2, 3), method)
    assert grid.shape == (sum(counts), 2, 3)
    assert grid.isfinite().all()


@pytest.mark.parametrize("grid", [(2, 3), (7, 5), (48, 64), (60, 100)])
@pytest.mark.parametrize("divisor", [0, 16])
def test_direct_sampling_equals_resizing_padded_masks(grid: tuple[int, int], divisor: int) -> None:
    batch = make_batch([(20, 40), (48, 64)], [2, 3], divisor=divisor)
    expected = plain.resize(batch.padded_masks(), grid)
    assert_close(batch.downsampled_masks(grid), expected)


def test_a_bad_image_is_named_by_its_position() -> None:
    good, bad = torch.rand(3, 4, 4), torch.rand(1, 4, 4)
    with pytest.raises(ValueError, match=r"image 1: expected a \[3, H, W\] tensor, found \[1, 4"):
        pad_batch([good, bad], None, InputFormat(MEAN, STD), Resize(), CPU)


def test_bad_masks_are_named_by_their_position() -> None:
    with pytest.raises(ValueError, match=r"image 0: expected \[Q, h, w\] masks, found \[4, 4\]"):
        pad_batch(
            [torch.rand(3, 4, 4)],
            [SoftMasks(torch.ones(4, 4))],
            InputFormat(MEAN, STD),
            Resize(),
            CPU,
        )


def test_unknown_downsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="DOWNSAMPLE_METHOD: 'area' is not one of"):
        downsample_masks(torch.rand(1, 4, 4), (2, 2), "area")


def test_padded_size_is_rounded_up() -> None:
    assert padded_size([(10, 64), (33, 5)], 32) == (64, 64)
    assert padded_size([(10, 64), (33, 5)], 0) == (33, 64)


@pytest.mark.parametrize("counts", [[2, 0, 3], [1], [0, 4]])
def test_unpad_ragged_inverts_pad_ragged(counts: list[int]) -> None:
    rows = torch.rand(sum(counts), 5)
    padded = pad_ragged(rows, counts)
    assert padded.shape == (len(counts), max(counts), 5)
    assert torch.equal(unpad_ragged(padded, counts), rows)


@pytest.mark.parametrize("size", [(7, 9), (3, 20), (14, 18)])
def test_resize_bilinear_is_not_corner_aligned(size: tuple[int, int]) -> None:
    maps: Tensor = torch.rand(3, 7, 9)
    assert_close(resize_bilinear(maps, size), plain.resize(maps, size))


def test_images_of_one_size_are_passed_on_together() -> None:
    sizes = [(4, 6), (5, 5), (4, 6)]
    records: list[Record] = [
        {"image": torch.zeros(3, *size), "image_id": index} for index, size in enumerate(sizes)
    ]
    batches = []

    def function(batch: Sequence[Record]) -> list[int | str]:
        batches.append([record["image_id"] for record in batch])
        return [record["image_id"] for record in batch]

    assert call_by_size(function, records) == [0, 1, 2]
    assert batches == [[0, 2], [1]]


def test_images_that_differ_in_one_side_only_are_of_two_sizes() -> None:
    records: list[Record] = [{"image": torch.zeros(3, *size)} for size in ((4, 6), (4, 7), (5, 6))]
    batches: list[int] = []

    def function(batch: Sequence[Record]) -> list[int]:
        batches.append(len(batch))
        return [0] * len(batch)

    call_by_size(function, records)
    assert batches == [1, 1, 1]


def test_bicubic_downsampling_is_not_corner_aligned() -> None:
    masks = torch.rand(2, 9, 12)
    expected = F.interpolate(masks[None], (4, 5), mode="bicubic", align_corners=False)[0]
    assert_close(downsample_masks(masks, (4, 5), "bicubic"), expected)
