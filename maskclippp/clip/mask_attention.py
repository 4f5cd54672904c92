"""Attention of mask tokens: every mask looks at its own cells of the feature grid.

Nothing looks at a mask token, so the tokens of the image are computed by ordinary fused attention
and the masks by a small cross-attention (Q x h*w) beside it, instead of by one dense bias of
heads x (Q + 1 + h*w)^2.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.masks.batching import pad_ragged

# Added to the attention logit of a cell outside the mask. Finite: a mask without any cell attends
# to all of them alike.
OUTSIDE = -100.0


def mask_attention_bias(masks: Tensor, log_scale: Tensor, threshold: float | None) -> Tensor:
    """Attention bias of soft masks [N, h, w] for every head -> [N, heads, h*w].

    Inside a mask: its value times exp(log_scale[head]); elsewhere ``OUTSIDE``. A cell is inside
    when its value exceeds ``threshold``; None: half of the largest value of that mask.

    Args:
        masks: on the feature grid, values in [0, 1].
        log_scale: [heads].
        threshold: strict lower limit of the values inside.
    """
    values = masks.flatten(1)
    limit = values.amax(dim=1, keepdim=True) / 2 if threshold is None else threshold
    inside = values > limit
    scaled = values[:, None] * log_scale.exp()[:, None]
    return torch.where(inside[:, None], scaled, OUTSIDE)


def attend_to_masks(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, masks_per_image: Sequence[int]
) -> Tensor:
    """Cross-attention of mask tokens to the cells of their image.

    Args:
        query: [B, heads, Q, d], Q the largest number of masks of an image.
        key: [B, heads, h*w, d].
        value: [B, heads, h*w, d].
        bias: [N, heads, h*w] of :func:`mask_attention_bias`.
        masks_per_image: B numbers of masks, N in all.

    Returns:
        [B, heads, Q, d]; rows beyond an image's own masks mean nothing.
    """
    padded = pad_ragged(bias.to(query.dtype), masks_per_image).transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=padded)


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """[B, L, heads * d] -> [B, heads, L, d]."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def join_heads(attended: Tensor) -> Tensor:
    """[B, heads, L, d] -> [B, L, heads * d]."""
    return attended.transpose(1, 2).flatten(2)


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h*w, C] -> [B, C, h, w]."""
    return tokens.transpose(1, 2).unflatten(-1, grid)
