"""Attention of masks: each mask attends to its own cells of the feature grid.

Nothing attends to a mask token. So the tokens of the image need only ordinary fused attention, and
the masks a small additional cross-attention (Q x h*w), instead of one dense bias of
heads x (Q + 1 + h*w)^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from maskclippp.masks.batching import pad_ragged

# Added to the attention logit of a cell outside the mask. Finite, so that a mask without any cell
# attends to all of them equally.
OUTSIDE = -100.0


@dataclass(frozen=True)
class MaskAttentionSettings:
    """How masks attend to the feature grid.

    Attributes:
        threshold: a cell is inside a mask where the mask exceeds this value; None: half of the
            mask's maximum.
        log_scale: initial log of the weight of mask values.
        learnable: train that weight, one per head (and block).
        downsample_method: how masks are resized to the feature grid.
    """

    threshold: float | None = None
    log_scale: float = -5.0
    learnable: bool = True
    downsample_method: str = "bilinear"

    @classmethod
    def from_config(cls, node: CfgNode) -> "MaskAttentionSettings":
        """From a VISUAL_ENCODER config node."""
        return cls(
            threshold=node.DOWN_MASK_THRESH,
            log_scale=node.MASK_LOGIT_SCALE,
            learnable=node.LEARNABLE_MASK_LOGIT_SCALE,
            downsample_method=node.DOWNSAMPLE_METHOD,
        )

    def make_log_scale(self, *shape: int, frozen: bool) -> nn.Parameter:
        """The log of the weight of mask values; not trained in a frozen encoder."""
        scales = torch.full(shape, float(self.log_scale))
        return nn.Parameter(scales, requires_grad=self.learnable and not frozen)


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


def with_prefix(bias: Tensor, count: int) -> Tensor:
    """The bias [N, heads, h*w], preceded by ``count`` tokens that belong to every mask.

    Their bias is the largest of the mask.
    """
    if count == 0:
        return bias
    return torch.cat([bias.amax(dim=-1, keepdim=True).expand(-1, -1, count), bias], dim=-1)


def attend_to_masks(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, masks_per_image: Sequence[int]
) -> Tensor:
    """Cross-attention of mask tokens to the cells of their image.

    Args:
        query: [B, heads, Q, d], where Q is the largest number of masks of an image.
        key: [B, heads, h*w, d].
        value: [B, heads, h*w, d].
        bias: [N, heads, h*w], see :func:`mask_attention_bias`.
        masks_per_image: the B numbers of masks; their sum is N.

    Returns:
        [B, heads, Q, d]; rows beyond the number of masks of an image are meaningless.
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
