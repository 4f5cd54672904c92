"""Vision transformers of timm: those of SigLIP, PE-Core, EVA-CLIP, MobileCLIP, ViTamin."""

from typing import Any

import torch
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from maskclippp.clip.mask_attention import join_heads, split_heads
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.clip.towers import TransformerTower, project_fused, unsupported

_BLOCKS = (Block, EvaBlock, EvaBlockPostNorm)
_ATTENTIONS = (Attention, EvaAttention, AttentionRope)


class TimmViT(TransformerTower):
    """A ``VisionTransformer`` or ``Eva``, alone or in an open_clip ``TimmModel``."""

    def __init__(self, proxy: nn.Module) -> None:
        trunk: Any = getattr(proxy, "trunk", proxy)
        _check(trunk)
        self.trunk = trunk
        self.blocks = trunk.blocks
        self.prefix = trunk.num_prefix_tokens
        self.stride = trunk.patch_embed.feat_ratio(as_scalar=True)
        self.pooling = trunk.global_pool
        # Of a TimmModel; a bare trunk has its projection in its own head.
        self.projection: Any = nn.Identity() if trunk is proxy else proxy.head
        self.finetuned_patterns = _patterns("" if trunk is proxy else "trunk.", self.pooling)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :class:`Tower`; the context is the rotary embedding of the patches."""
        trunk = self.trunk
        maps = _patch_maps(trunk.patch_embed, images)
        grid = (maps.shape[-2], maps.shape[-1])
        tokens = maps.flatten(2).transpose(1, 2)
        prefix = [
            token.expand(len(images), -1, -1)
            for token in (trunk.cls_token, trunk.reg_token)
            if token is not None
        ]
        positions = None
        if trunk.pos_embed is not None:
            # Models with registers, among others, give no position to prefix tokens.
            positioned = 0 if trunk.no_embed_class else self.prefix
            positions = resize_position_embedding(trunk.pos_embed[0], grid, positioned)
        if positions is not None and trunk.no_embed_class:
            tokens, positions = tokens + positions, None
        tokens = torch.cat([*prefix, tokens], dim=1)
        if positions is not None:
            tokens = tokens + positions
        return trunk.norm_pre(tokens), self._rotary(grid)

    def _rotary(self, grid: tuple[int, int]) -> Tensor | None:
        """Rotary embedding of the patches, if the tower has one."""
        rope = getattr(self.trunk, "rope", None)
        if rope is None:
            return None
        with torch.inference_mode(False):  # kept by timm; training may need it after an evaluation
            rope.update_feat_shape(list(grid))
        rotary: Tensor = rope.get_embed()
        return rotary

    def run_block(self, block: Any, features: Tensor, context: Tensor | None) -> Tensor:
        """See :class:`Tower`."""
        return block(features) if context is None else block(features, rope=context)

    def project(
        self, block: Any, tokens: Tensor, parts: str, context: Tensor | None
    ) -> tuple[Tensor, ...]:
        """See :class:`TransformerTower`."""
        attention = block.attn
        normed = tokens if isinstance(block, EvaBlockPostNorm) else block.norm1(tokens)
        if attention.qkv is None:
            projected = tuple(getattr(attention, f"{part}_proj")(normed) for part in parts)
        else:
            projected = project_fused(normed, attention.qkv.weight, _fused_bias(attention), parts)
        return tuple(
            self._as_heads(attention, letter, part, context)
            for letter, part in zip(parts, projected, strict=True)
        )

    def _as_heads(
        self, attention: Any, letter: str, projected: Tensor, context: Tensor | None
    ) -> Tensor:
        """Split, normalize and rotate queries, keys or values; repeat keys that heads share."""
        if letter == "q":
            heads = attention.q_norm(split_heads(projected, attention.num_heads))
        else:
            groups = getattr(attention, "num_kv_heads", attention.num_heads)
            heads = split_heads(projected, groups)
            heads = attention.k_norm(heads) if letter == "k" else heads
        if context is not None and letter != "v":
            half = getattr(attention, "rotate_half", False)
            rotated = apply_rot_embed_cat(heads[:, :, self.prefix :], context, half=half)
            heads = torch.cat([heads[:, :, : self.prefix], rotated.type_as(heads)], dim=2)
        shared = attention.num_heads // heads.shape[1]
        return heads if shared == 1 else heads.repeat_interleave(shared, dim=1)

    def finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        """See :class:`TransformerTower`."""
        attended = block.attn.proj(block.attn.norm(join_heads(attended)))
        if isinstance(block, EvaBlockPostNorm):
            tokens = tokens + block.drop_path1(block.norm1(attended))
            return tokens + block.drop_path2(block.norm2(block.mlp(tokens)))
        tokens = tokens + block.drop_path1(_scaled(block, 1, attended))
        return tokens + block.drop_path2(_scaled(block, 2, block.mlp(block.norm2(tokens))))

    def norm(self, features: Tensor) -> Tensor:
        """See :class:`Tower`."""
        normed: Tensor = self.trunk.norm(features)
        return normed

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`Tower`."""
        embedded: Tensor = self.projection(self.trunk.head(self.trunk.fc_norm(pooled)))
        return embedded


def _check(trunk: Any) -> None:
    """Raise an InputError if the tower has parts that would be left out."""
    kind = type(trunk)
    if kind not in (VisionTransformer, Eva):
        raise unsupported(kind.__name__, "it is not one of the supported networks")
    if not all(type(b) in _BLOCKS and type(b.attn) in _ATTENTIONS for b in trunk.blocks):
        raise unsupported(kind.__name__, "its blocks are of an unknown kind")
    if any(block.attn.gate is not None for block in trunk.blocks):
        raise unsupported(kind.__name__, "its attention is gated")
    rope = getattr(trunk, "rope", None)
    if rope is not None and not hasattr(rope, "update_feat_shape"):
        raise unsupported(kind.__name__, f"its positions are a {type(rope).__name__}")
    if trunk.global_pool not in ("token", "map", "avg"):
        raise unsupported(kind.__name__, f"it pools by {trunk.global_pool!r}")


def _patch_maps(patch_embed: Any, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] -> patches [B, C, h, w]; some towers have convolutions before."""
    if hasattr(patch_embed, "backbone"):
        images = patch_embed.backbone(images)
    maps: Tensor = patch_embed.proj(images)
    return maps


def _fused_bias(attention: Any) -> Tensor | None:
    """The bias of a fused projection; EVA's has none for the keys."""
    if isinstance(attention, EvaAttention):
        biases: tuple[Any, ...] = (attention.q_bias, attention.k_bias, attention.v_bias)
        return None if attention.q_bias is None else torch.cat(biases)
    bias: Tensor | None = attention.qkv.bias
    return bias


def _scaled(block: Any, branch: int, values: Tensor) -> Tensor:
    """Layer scale of a branch (1: attention, 2: MLP), where the block has one."""
    if isinstance(block, EvaBlock):
        gamma = getattr(block, f"gamma_{branch}")
        return values if gamma is None else values * gamma
    scaled: Tensor = getattr(block, f"ls{branch}")(values)
    return scaled


def _patterns(trunk: str, pooling: str) -> dict[str, tuple[str, ...]]:
    """See ``finetuned_patterns``; ``trunk`` is the place of the trunk in the encoder's network."""
    pool = f"{trunk}attn_pool"
    last = ("attn_pool.proj", "attn_pool.norm", "attn_pool.mlp") if pooling == "map" else ("norm",)
    after_attention = ("fc_norm", "head", *last)
    excluded = (*(f"!{trunk}{name}.*" for name in after_attention), "!head.*")
    projections = ("q_proj", "v_proj", "qkv")
    return {
        "none": (),
        "all": ("*",),
        "before_proj": ("*", *excluded),
        "attention": (
            f"{trunk}pos_embed",
            *(f"{trunk}blocks.*.attn.{name}.weight" for name in projections),
            *(f"{pool}.{name}.weight" for name in ("q", "kv")),
        ),
    }
