"""Position embeddings for feature grids of any size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.errors import InputError


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """Resize the position embedding of prefix tokens and a square grid to another grid.

    Bicubic, corner-aligned, not antialiased, as in EVA-CLIP; the rows of prefix tokens are kept.

    Args:
        embedding: [n + g*g, C].
        grid: height h and width w of the new grid.
        prefix: number n of prefix tokens (class token, registers), which come first.

    Returns:
        [n + h*w, C]; ``embedding`` itself when it has that grid.
    """
    side = math.isqrt(len(embedding) - prefix)
    if side * side != len(embedding) - prefix:
        raise InputError(
            f"position embedding: expected {prefix} + g*g rows, found {len(embedding)}"
        )
    is_known = all(isinstance(cells, int) for cells in grid)  # else a symbol of an exported graph
    if is_known and grid == (side, side):
        return embedding
    cells = embedding[prefix:].T.reshape(1, -1, side, side)
    cells = cells.float()  # half precision is too coarse for positions
    if cells.requires_grad and torch.is_grad_enabled():
        # On GPUs, the gradient of F.interpolate depends on the order in which threads finish.
        rows, columns = (_bicubic_weights(side, size, cells) for size in grid)
        with torch.autocast(cells.device.type, enabled=False):
            resized = (rows @ cells.to(rows.dtype) @ columns.T).float()
    else:
        resized = _bicubic(cells, grid)
    return torch.cat([embedding[:prefix], resized[0].flatten(1).T.to(embedding.dtype)])


def _bicubic(cells: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(cells, size=size, mode="bicubic", align_corners=True)


def _bicubic_weights(side: int, size: int, like: Tensor) -> Tensor:
    """[size, side]: what each of ``side`` cells in a row adds to those of the resized row."""
    cells = torch.eye(side, device=like.device)[None, :, :, None]
    weights = _bicubic(cells, (size, 1))[0, :, :, 0].T
    # TF32 does not touch products of float64, which Apple's GPUs do not have.
    return weights if like.device.type == "mps" else weights.double()
