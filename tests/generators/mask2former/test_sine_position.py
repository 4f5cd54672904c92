"""Position encodings by sines and cosines."""

import math

import pytest
import torch
from torch.testing import assert_close

from maskclippp.generators.mask2former.sine_position import sine_position_encoding

CPU = torch.device("cpu")


def test_every_value_follows_the_formula() -> None:
    height, width, channels = 3, 5, 8
    encoding = sine_position_encoding((height, width), channels, device=CPU)
    expected = torch.empty(channels, height, width)
    half = channels // 2
    for row in range(height):
        for column in range(width):
            for first, index, length in ((0, row, height), (half, column, width)):
                for pair in range(half // 2):
                    angle = (index + 1) / (length + 1e-6) * 2 * math.pi
                    angle /= 10000 ** (2 * pair / half)
                    expected[first + 2 * pair, row, column] = math.sin(angle)
                    expected[first + 2 * pair + 1, row, column] = math.cos(angle)
    assert_close(encoding, expected, rtol=0, atol=1e-6)


def test_channels_that_cannot_be_split_are_an_error() -> None:
    with pytest.raises(ValueError, match="divisible by 4, found 6"):
        sine_position_encoding((2, 2), 6, device=CPU)
