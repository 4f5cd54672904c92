"""Image towers of open_clip and timm, by the parts that mask encoders need.

A tower is not a module: it calls the parts of a network that an encoder owns. How masks are
embedded is the business of the encoders, one per pooling family.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maskclippp.clip.finetuning import Patterns
from maskclippp.errors import InputError

Size = tuple[int, int]


class Tower(ABC):
    """An image tower: what comes before its blocks, its blocks, and what comes after them.

    Attributes:
        blocks: the parts that take most of the time, in order.
        block_name: how OUT_FEATURES calls the output of a block, without its number.
        stride: image pixels per side of a cell of the last feature map.
        pooling: what the tower does with its last features: token, map or avg.
        finetuned_patterns: the parameters that each FINETUNE_TYPE trains.
    """

    blocks: nn.ModuleList | nn.Sequential
    block_name: str
    stride: int
    pooling: str
    finetuned_patterns: Mapping[str, Patterns]

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, Any]:
        """Images [B, 3, H, W] -> the input of the first block, and a context that blocks need."""

    @abstractmethod
    def run_block(self, block: Any, features: Tensor, context: Any) -> Tensor:
        """A whole pretrained block."""

    @abstractmethod
    def norm(self, features: Tensor) -> Tensor:
        """What follows the last block before pooling."""

    @abstractmethod
    def as_map(self, features: Tensor, grid: Size) -> Tensor:
        """The cells among the features, [B, C, h, w]; ``grid`` is that of the last feature map."""

    @abstractmethod
    def head(self, pooled: Tensor) -> Tensor:
        """What follows pooling: [..., C] -> [..., D]."""


class TransformerTower(Tower):
    """A vision transformer: prefix tokens (class, registers) and h * w patches.

    Attributes:
        prefix: number of prefix tokens, which come first.
    """

    prefix: int
    block_name = "block"

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        block: Any = self.blocks[0]
        return int(block.attn.num_heads)

    def as_map(self, features: Tensor, grid: Size) -> Tensor:
        """See :class:`Tower`."""
        return features[:, self.prefix :].transpose(1, 2).unflatten(-1, grid)

    @abstractmethod
    def project(self, block: Any, tokens: Tensor, parts: str, context: Any) -> tuple[Tensor, ...]:
        """Queries, keys or values of tokens [B, L, C], each [B, heads, L, d].

        ``parts`` is a substring of "qkv". ``context`` is that of :meth:`embed` for all tokens of
        the image, None for tokens without a position.
        """

    @abstractmethod
    def finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        """The block after attention: tokens [B, L, C], attended [B, heads, L, d] -> [B, L, C]."""


def unsupported(kind: str, reason: str) -> InputError:
    """The error for a tower that no encoder can run."""
    return InputError(
        f"VISUAL_ENCODER.MODEL_NAME: the {kind} of this model cannot embed masks ({reason}); "
        "choose a model that docs/encoders.md does not list as refused"
    )


def project_fused(
    tokens: Tensor, weight: Tensor, bias: Tensor | None, parts: str
) -> tuple[Tensor, ...]:
    """Query, key or value by their rows of a fused projection.

    Args:
        tokens: [B, L, C].
        weight: [3 * C', C], rows of query, key and value.
        bias: [3 * C'], or None.
        parts: a substring of "qkv".

    Returns:
        [B, L, C'] per letter.
    """
    width = len(weight) // 3
    start = "qkv".index(parts) * width
    rows = slice(start, start + len(parts) * width)
    return torch.nn.functional.linear(
        tokens, weight[rows], None if bias is None else bias[rows]
    ).chunk(len(parts), dim=-1)
