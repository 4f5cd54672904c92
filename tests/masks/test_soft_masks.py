"""Masks that stay at their own resolution give what enlarging, cropping and resizing them gives."""

import inspect
import textwrap

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.masks.batching import (
    DOWNSAMPLE_METHODS,
    InputFormat,
    PaddedBatch,
    Resize,
    downsample_masks,
    pad_batch,
)
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.masks.upsampling import best_rows, solid_parts

Size = tuple[int, int]
NUM_MASKS = 5
# Masks, padded size, image size: the usual stride, odd sizes, masks larger than the image, no
# padding at all, axes of a single cell or pixel.
FRAMES = [
    ((16, 24), (64, 96), (60, 91)),
    ((7, 9), (31, 37), (23, 37)),
    ((40, 50), (32, 32), (29, 17)),
    ((12, 12), (48, 48), (48, 48)),
    ((1, 1), (32, 64), (20, 33)),
    ((1, 8), (1, 32), (1, 30)),
    ((8, 8), (32, 32), (1, 1)),
    ((40, 40), (160, 160), (96, 131)),
]
OUTPUTS = [(60, 91), (61, 83), (121, 77), (13, 200), (5, 7), (1, 1), (1, 40)]


def framed(size: Size, padded: Size, image: Size) -> SoftMasks:
    return SoftMasks(torch.rand(NUM_MASKS, *size), Frame(padded, image))


def in_image(masks: SoftMasks) -> Tensor:
    """[Q, H, W] at the size of the image in them: enlarged, and cut out."""
    if masks.frame is None:
        return masks.values
    height, width = masks.frame.image_size
    return plain.resize(masks.values, masks.frame.padded_size)[:, :height, :width]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_resized(frame: tuple[Size, Size, Size], output: Size) -> None:
    masks = framed(*frame)
    assert_close(masks.resized(output), plain.resize(in_image(masks), output))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("size", [(16, 24), (40, 3), (1, 1)])
def test_masks_without_a_frame_span_the_image(size: Size, output: Size) -> None:
    values = torch.rand(NUM_MASKS, *size) > 0.5
    assert_close(SoftMasks(values).resized(output), plain.resize(values, output))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_resized_equals_the_definition(frame: tuple[Size, Size, Size], output: Size) -> None:
    """The function that the docstring of SoftMasks gives."""
    lines = inspect.getdoc(SoftMasks) or ""
    code = lines[lines.index("def resized") : lines.index("All of it is linear")]
    namespace = {"F": torch.nn.functional}
    exec(textwrap.dedent("    " + code), namespace)
    masks = framed(*frame)
    expected = namespace["resized"](masks.values, masks.frame, output)  # type: ignore[operator]
    assert_close(masks.resized(output), expected)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_the_best_row_is_that_of_resized_masks(
    frame: tuple[Size, Size, Size], output: Size
) -> None:
    masks, weights = framed(*frame), torch.randn(NUM_MASKS, 7)
    labels = best_rows(weights, masks, output)
    scores = torch.einsum("qk,qhw->khw", weights, plain.resize(in_image(masks), output))
    assert torch.equal(labels, scores.argmax(dim=0))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_solid_parts_are_those_of_resized_masks(
    frame: tuple[Size, Size, Size], output: Size
) -> None:
    masks = framed(*frame)
    solid = solid_parts(masks, output)
    resized = plain.resize(in_image(masks), output)
    binary = resized > 0.5
    assert torch.equal(solid.binary, binary)
    assert torch.equal(solid.area, binary.sum(dim=(1, 2)))
    assert_close(solid.mass, (resized * binary).sum(dim=(1, 2)))


def test_what_lies_in_the_padding_is_not_part_of_a_mask() -> None:
    """Large regions, and a border in rows that no output reads."""
    values = torch.nn.functional.interpolate(torch.rand(1, 7, 4, 4), size=(40, 40), mode="bicubic")
    masks, output = SoftMasks(values[0], Frame((160, 160), (96, 131))), (61, 83)
    solid, resized = solid_parts(masks, output), masks.resized(output)
    assert torch.equal(solid.binary, resized > 0.5)
    assert torch.equal(solid.area, (resized > 0.5).sum(dim=(1, 2)))


def test_chosen_masks_keep_their_place() -> None:
    masks = framed(*FRAMES[0])
    chosen = masks[torch.tensor([3, 0])]
    assert len(chosen) == 2
    assert chosen.frame == masks.frame
    assert_close(chosen.resized((9, 9)), masks.resized((9, 9))[[3, 0]])


def test_no_masks_stay_no_masks() -> None:
    masks = framed(*FRAMES[0])[torch.zeros(0, dtype=torch.long)]
    assert masks.resized((9, 11)).shape == (0, 9, 11)


@pytest.fixture(params=[Resize(), Resize("short", 24), Resize("square", 50)], ids=lambda r: r.kind)
def batch_and_masks(request: pytest.FixtureRequest) -> tuple[PaddedBatch, list[SoftMasks]]:
    """A batch of images of several sizes, and their masks: with a frame, without, and none."""
    masks = [
        framed((16, 24), (64, 96), (60, 91)),
        SoftMasks(torch.rand(2, 11, 13)),
        SoftMasks(torch.zeros(0, 16, 24), Frame((64, 96), (40, 33))),
    ]
    images = [torch.rand(3, *size) for size in ((60, 91), (33, 40), (40, 33))]
    fmt = InputFormat((0.0,) * 3, (1.0,) * 3, size_divisibility=32)
    return pad_batch(images, masks, fmt, request.param, torch.device("cpu")), masks


def padded(batch: PaddedBatch, masks: list[SoftMasks]) -> Tensor:
    """[N, H, W]: masks resized with their images, in the padded batch."""
    height, width = batch.images.shape[-2:]
    canvases = []
    for image_masks, size in zip(masks, batch.image_sizes, strict=True):
        canvas = torch.zeros(len(image_masks), height, width)
        canvas[:, : size[0], : size[1]] = plain.resize(in_image(image_masks), size)
        canvases.append(canvas)
    return torch.cat(canvases)


def test_masks_are_padded_with_their_images(
    batch_and_masks: tuple[PaddedBatch, list[SoftMasks]],
) -> None:
    batch, masks = batch_and_masks
    assert_close(batch.padded_masks(), padded(batch, masks))


@pytest.mark.parametrize("method", DOWNSAMPLE_METHODS)
@pytest.mark.parametrize("grid", [(3, 4), (7, 5), (1, 1)])
def test_masks_on_the_feature_grid(
    batch_and_masks: tuple[PaddedBatch, list[SoftMasks]], method: str, grid: Size
) -> None:
    batch, masks = batch_and_masks
    expected = downsample_masks(padded(batch, masks), grid, method)
    assert_close(batch.downsampled_masks(grid, method), expected)
