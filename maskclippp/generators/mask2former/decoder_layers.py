"""The layers of the mask decoder: cross-attention, self-attention and feed-forward.

Parameter names are those of the published checkpoints. ``nn.MultiheadAttention`` holds the
parameters; :func:`attend` computes, because its own forward pass copies a mask for every head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(
    attention: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None = None,
) -> Tensor:
    """Multi-head attention by the fused kernel, with one mask for all heads.

    Args:
        attention: the parameters; all its widths are C.
        query: [B, Q, C].
        key: [B, L, C].
        value: [B, L, C].
        allowed: bool [B, Q, L], True where a query may attend; None: everywhere.

    Returns:
        [B, Q, C].
    """
    queries, keys, values = (
        F.linear(tokens, weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for tokens, weight, bias in zip(
            (query, key, value),
            attention.in_proj_weight.chunk(3),
            attention.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    mask = None if allowed is None else allowed[:, None]
    heads = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attention.out_proj(heads.transpose(1, 2).flatten(-2))


class _ResidualLayer(nn.Module):
    """Adds an update to the queries, with a LayerNorm after the sum or before the update.

    Args:
        hidden_dim: C.
        pre_norm: normalize the input of the update instead of the sum.
    """

    def __init__(self, *, hidden_dim: int, pre_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_dim)
        self.pre_norm = pre_norm

    def _add(self, queries: Tensor, update: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return queries + update(self.norm(queries))
        return self.norm(queries + update(queries))


class CrossAttentionLayer(_ResidualLayer):
    """Queries attend to the cells of a feature map inside their current masks."""

    def __init__(self, *, hidden_dim: int, num_heads: int, pre_norm: bool) -> None:
        super().__init__(hidden_dim=hidden_dim, pre_norm=pre_norm)
        self.multihead_attn = nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True)

    def forward(
        self, queries: Tensor, position: Tensor, keys: Tensor, values: Tensor, inside: Tensor
    ) -> Tensor:
        """One update of the queries.

        Args:
            queries: [B, Q, C].
            position: [Q, C], added to the queries of the attention.
            keys: [B, L, C], cells with their position.
            values: [B, L, C].
            inside: bool [B, Q, L]. A query without any cell attends to all of them.

        Returns:
            [B, Q, C].
        """
        allowed = inside | ~inside.any(dim=-1, keepdim=True)
        return self._add(
            queries,
            lambda tokens: attend(self.multihead_attn, tokens + position, keys, values, allowed),
        )


class SelfAttentionLayer(_ResidualLayer):
    """Queries attend to each other."""

    def __init__(self, *, hidden_dim: int, num_heads: int, pre_norm: bool) -> None:
        super().__init__(hidden_dim=hidden_dim, pre_norm=pre_norm)
        self.self_attn = nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True)

    def forward(self, queries: Tensor, position: Tensor) -> Tensor:
        """One update of the queries [B, Q, C]; ``position`` [Q, C] is added to query and key."""

        def update(tokens: Tensor) -> Tensor:
            placed = tokens + position
            return attend(self.self_attn, placed, placed, tokens)

        return self._add(queries, update)


class FeedForwardLayer(_ResidualLayer):
    """Two linear maps with a ReLU between them, on each query."""

    def __init__(self, *, hidden_dim: int, feedforward_dim: int, pre_norm: bool) -> None:
        super().__init__(hidden_dim=hidden_dim, pre_norm=pre_norm)
        self.linear1 = nn.Linear(hidden_dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, hidden_dim)

    def forward(self, queries: Tensor) -> Tensor:
        """One update of the queries [B, Q, C]."""
        return self._add(queries, lambda tokens: self.linear2(F.relu(self.linear1(tokens))))


class MLP(nn.Module):
    """Three linear maps with ReLUs between them: [..., input_dim] -> [..., output_dim]."""

    def __init__(self, *, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Linear(input_dim, hidden_dim),
                nn.Linear(hidden_dim, hidden_dim),
                nn.Linear(hidden_dim, output_dim),
            ]
        )

    def forward(self, values: Tensor) -> Tensor:
        """Apply the maps to the last dimension."""
        first, second, last = self.layers
        return last(torch.relu(second(torch.relu(first(values)))))
