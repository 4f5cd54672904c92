"""Encoder of the pixel decoder: every cell of every level attends to a few cells of all levels."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskclippp.generators.mask2former.deformable_attention import (
    GridSizes,
    MultiScaleDeformableAttention,
)
from maskclippp.generators.mask2former.sine_position import sine_position_encoding


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward part, each with residual and post-norm."""

    def __init__(
        self,
        *,
        attention: MultiScaleDeformableAttention,
        channels: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = attention
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, positions: Tensor, reference: Tensor, sizes: GridSizes
    ) -> Tensor:
        """Tokens [B, S, C], positions [1, S, C], reference [1, S, 1, 2] -> [B, S, C]."""
        attended = self.self_attn(tokens + positions, reference, tokens, sizes)
        tokens = self.norm1(tokens + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(tokens), inplace=True))
        return self.norm2(tokens + self.dropout(self.linear2(hidden)))


class DeformableEncoder(nn.Module):
    """A stack of layers on the cells of several maps."""

    def __init__(self, layers: Iterable[DeformableEncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, positions: Tensor, sizes: GridSizes) -> Tensor:
        """Tokens [B, S, C], positions [1, S, C], maps of the given sizes -> [B, S, C]."""
        reference = _cell_centers(sizes, tokens)
        for layer in self.layers:
            tokens = layer(tokens, positions, reference, sizes)
        return tokens


class DeformableTransformer(nn.Module):
    """Encodes all feature maps as one sequence of cells, coarse to fine.

    Args:
        channels: width C of the maps.
        num_levels: number of maps.
        num_layers: layers; 0 returns the maps unchanged.
        num_heads: attention heads.
        num_points: sampling points per head and level.
        feedforward_dim: hidden width of the feed-forward parts.
        dropout: probability.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_levels: int,
        num_layers: int,
        num_heads: int,
        num_points: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(num_levels, channels).normal_())
        self.encoder = DeformableEncoder(
            DeformableEncoderLayer(
                attention=MultiScaleDeformableAttention(
                    channels=channels,
                    num_levels=num_levels,
                    num_heads=num_heads,
                    num_points=num_points,
                ),
                channels=channels,
                feedforward_dim=feedforward_dim,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[B, C, h, w] per level -> the same shapes, in channels-last memory format."""
        sizes = [(level.shape[-2], level.shape[-1]) for level in maps]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        tokens = tokens.to(self.level_embed.dtype)  # sums are not rounded under autocast
        tokens = self.encoder(tokens, self._positions(sizes, tokens), sizes)
        levels = tokens.split([height * width for height, width in sizes], dim=1)
        return [
            level.transpose(1, 2).unflatten(2, size)
            for level, size in zip(levels, sizes, strict=True)
        ]

    def _positions(self, sizes: GridSizes, tokens: Tensor) -> Tensor:
        """Position and level embeddings of all cells: [1, S, C]."""
        # Recomputed for each batch: it takes 0.2 % of the time; caching it would need much memory.
        levels = [
            sine_position_encoding(size, tokens.shape[-1], device=tokens.device).flatten(1).T
            + embedding
            for size, embedding in zip(sizes, self.level_embed, strict=True)
        ]
        return torch.cat(levels).to(tokens.dtype)[None]


def _cell_centers(sizes: GridSizes, tokens: Tensor) -> Tensor:
    """Centers (x, y) of the cells of all maps, at least float32: [1, S, 1, 2]."""
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    centers = []
    for height, width in sizes:
        y = (torch.arange(height, dtype=dtype, device=tokens.device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=tokens.device) + 0.5) / width
        centers.append(torch.cartesian_prod(y, x).flip(-1))
    return torch.cat(centers)[None, :, None]
