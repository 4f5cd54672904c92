"""Fixed sine and cosine position encodings (DETR, arXiv 2005.12872)."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from maskclippp.errors import InputError

_TEMPERATURE = 10000.0
_EPSILON = 1e-6


def sine_position_encoding(size: tuple[int, int], channels: int, *, device: torch.device) -> Tensor:
    """Encoding of every cell of a grid: float32 [channels, h, w].

    The first half of the channels encodes the row, the second the column. A coordinate 1..n becomes
    an angle in (0, 2 pi]; channels 2j and 2j + 1 of a half are the sine and cosine of the angle
    divided by 10000^(2j / (channels / 2)).

    Args:
        size: h and w.
        channels: a multiple of 4.
        device: of the result.
    """
    if channels % 4:
        raise InputError(
            f"a sine position encoding needs channels divisible by 4, found {channels}"
        )
    height, width = size
    # The sizes of an exported graph are symbols, which no table can hold.
    encode_axis = _encode_axis if torch.compiler.is_exporting() else _kept_axis
    rows = encode_axis(height, channels // 2, device)[:, :, None].expand(-1, -1, width)
    columns = encode_axis(width, channels // 2, device)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])


def _encode_axis(length: int, channels: int, device: torch.device) -> Tensor:
    """[channels, length]; usable in training, even if made in inference mode."""
    with torch.inference_mode(False):
        coordinates = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angles = coordinates / (length + _EPSILON) * (2 * math.pi)
        exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels
        angles = angles / _TEMPERATURE ** exponents[:, None]
        return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)


# A grid is made of two axes, each of which takes a dozen operations.
_kept_axis = lru_cache(maxsize=256)(_encode_axis)
