"""Our run-length codes are those of pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_codec

from maskclippp.masks import run_length
from maskclippp.masks.run_length import encode_masks, first_invalid


def expected(masks: torch.Tensor) -> list[dict[str, object]]:
    codes = mask_codec.encode(np.asfortranarray(masks.numpy().astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": code["size"], "counts": code["counts"].decode()} for code in codes]


def corner(row: int, column: int) -> torch.Tensor:
    mask = torch.zeros(1, 6, 5, dtype=torch.bool)
    mask[0, row, column] = True
    return mask


@pytest.mark.parametrize(
    "masks",
    [
        torch.zeros(1, 6, 5, dtype=torch.bool),
        torch.ones(1, 6, 5, dtype=torch.bool),
        *(corner(row, column) for row in (0, 5) for column in (0, 4)),
        corner(3, 2),
        torch.ones(2, 1, 1, dtype=torch.bool),
        torch.rand(8, 33, 47) > 0.5,
        (torch.rand(8, 33, 47) > 0.5) & (torch.arange(47) > 20) & (torch.arange(47) < 30),
    ],
)
def test_codes_equal_those_of_pycocotools(masks: torch.Tensor) -> None:
    assert encode_masks(masks) == expected(masks)


def test_no_masks_give_no_codes() -> None:
    assert encode_masks(torch.zeros(0, 6, 5, dtype=torch.bool)) == []


@pytest.mark.parametrize("counts", [[4, 3, 23], [0, 30], [30]])
def test_lists_and_strings_of_counts_are_decoded(counts: list[int]) -> None:
    code = {"size": [6, 5], "counts": counts}
    expected = np.repeat(np.arange(len(counts)) % 2, counts).reshape(5, 6).T
    (text,) = encode_masks(torch.from_numpy(expected.copy())[None])
    for form in (code, run_length.compress(code), text):
        assert (run_length.decode(form) == expected).all()
    assert (run_length.decode_checked(code) == expected).all()
    assert (run_length.decode_checked(text) == expected).all()


def test_area_and_box_of_a_code() -> None:
    mask = np.zeros((6, 5), dtype=np.bool_)
    mask[2:5, 1:3] = True
    code = run_length.encode_mask(mask)
    assert run_length.area(code) == 6
    assert run_length.box(code) == [1, 2, 2, 3]


def test_polygons_are_united() -> None:
    squares = [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0], [3.0, 3.0, 5.0, 3.0, 5.0, 5.0, 3.0, 5.0]]
    expected = np.zeros((6, 5), dtype=np.bool_)
    expected[:2, :2], expected[3:5, 3:5] = True, True
    assert (run_length.fill_polygons(squares, (6, 5)) == expected).all()
    assert not run_length.fill_polygons([], (6, 5)).any()


def test_the_first_code_that_does_not_fill_its_image_is_found() -> None:
    masks = torch.rand(3000, 9, 7) > torch.rand(3000, 1, 1)
    codes: list[dict[str, object]] = [dict(code) for code in encode_masks(masks)]
    codes[1::3] = [dict(run_length.compress({**c, "counts": [63]})) for c in codes[1::3]]
    assert run_length.first_invalid(codes) is None
    codes[2345] = {"size": [9, 8], "counts": codes[2345]["counts"]}
    codes[2900] = {"size": [9, 7], "counts": [62]}
    assert run_length.first_invalid(codes) == (2345, "its runs add up to 63 pixels")
    assert run_length.first_invalid(codes[2346:]) == (554, "its runs add up to 62 pixels")


def test_runs_of_less_than_no_pixel_are_named() -> None:
    assert first_invalid([{"size": [2, 3], "counts": [-1, 7]}]) == (
        0,
        "it has runs of less than no pixel",
    )
