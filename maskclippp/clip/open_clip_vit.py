"""CLIP's own vision transformer, as open_clip builds it."""

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor
from typing_extensions import override

from maskclippp.clip.finetuning import Patterns
from maskclippp.clip.mask_attention import join_heads, split_heads
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.clip.towers import TransformerTower, project_fused, unsupported


class OpenClipViT(TransformerTower):
    """An open_clip ``VisionTransformer`` that pools its class token or averages its patches."""

    prefix = 1
    finetuned_patterns: Mapping[str, Patterns] = {
        "none": (),
        "all": ("*",),
        "before_proj": ("*", "!ln_post.*", "!proj"),
        "attention": ("positional_embedding", "transformer.resblocks.*.attn.in_proj_weight"),
    }

    def __init__(self, proxy: VisionTransformer) -> None:
        blocks = proxy.transformer.resblocks
        if proxy.attn_pool is not None:
            raise unsupported("pool of CoCa", "its many queries have no mask of their own")
        if not all(type(block) is ResidualAttentionBlock for block in blocks):
            raise unsupported("vision transformer", "its blocks are not CLIP's")
        if proxy.pool_type not in ("tok", "avg"):
            raise unsupported("vision transformer", f"it pools by {proxy.pool_type!r}")
        self.proxy = proxy
        self.blocks = blocks
        self.stride = proxy.patch_size[0]
        self.pooling = "token" if proxy.pool_type == "tok" else "avg"

    def embed(self, images: Tensor) -> tuple[Tensor, None]:
        """See :class:`Tower`."""
        proxy = self.proxy
        maps = proxy.conv1(images)
        patches = maps.flatten(2).transpose(1, 2)
        class_tokens = proxy.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([class_tokens, patches], dim=1)
        grid = (maps.shape[-2], maps.shape[-1])
        positions = resize_position_embedding(proxy.positional_embedding, grid)
        return proxy.ln_pre(tokens + positions), None

    @override
    def run_block(self, block: Any, features: Tensor, context: None) -> Tensor:
        """See :class:`Tower`."""
        return block(features)

    @override
    def project(self, block: Any, tokens: Tensor, parts: str, context: None) -> tuple[Tensor, ...]:
        """See :class:`TransformerTower`."""
        attention = block.attn
        projected = project_fused(
            block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias, parts
        )
        return tuple(split_heads(part, self.num_heads) for part in projected)

    def finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        """See :class:`TransformerTower`."""
        tokens = tokens + block.ls_1(block.attn.out_proj(join_heads(attended)))
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))

    def norm(self, features: Tensor) -> Tensor:
        """See :class:`Tower`; CLIPA's norm follows pooling."""
        return features if self.proxy.final_ln_after_pool else self.proxy.ln_post(features)

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`Tower`."""
        if self.proxy.final_ln_after_pool:
            pooled = self.proxy.ln_post(pooled)
        return pooled if self.proxy.proj is None else pooled @ self.proxy.proj
