"""Position embeddings for feature grids of any size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.errors import InputError


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize the position embedding of a class token and a square grid to another grid.

    Bicubic, corner-aligned, not antialiased, as in EVA-CLIP; the row of the class token is kept.

    Args:
        embedding: [1 + g*g, C].
        grid: height h and width w of the new grid.

    Returns:
        [1 + h*w, C]; ``embedding`` itself when it has that grid.
    """
    side = math.isqrt(len(embedding) - 1)
    if side * side != len(embedding) - 1:
        raise InputError(f"position embedding: expected 1 + g*g rows, found {len(embedding)}")
    if grid == (side, side):
        return embedding
    cells = embedding[1:].T.reshape(1, -1, side, side)
    # Half precision is too coarse for positions.
    resized = F.interpolate(cells.float(), size=grid, mode="bicubic", align_corners=True)
    return torch.cat([embedding[:1], resized[0].flatten(1).T.to(embedding.dtype)])
