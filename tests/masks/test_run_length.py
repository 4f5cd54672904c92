"""Our run-length codes are those of pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_codec

from maskclippp.masks.run_length import encode_masks


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
