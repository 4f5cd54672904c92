"""The image towers of EVA-CLIP (EVA-02 B/16, L/14, L/14-336; EVA-01 g/14) as mask classifiers."""

from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva, EvaBlock
from torch import Tensor, nn

from maskclippp.clip.eva_keys import store_by_published_keys
from maskclippp.clip.mask_attention import join_heads, split_heads
from maskclippp.clip.mask_tokens import MaskTokenEncoder, project_fused
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.errors import InputError
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class EVACLIPViT(MaskTokenEncoder):
    """An EVA-CLIP image tower that embeds masks.

    Its state dict has the key names of EVA-CLIP, as in published checkpoints.

    FINETUNE_TYPE: none | all | before_proj (all but the final norm and the projection) | attention
    (query and value, or fused, projection weights and position embedding).

    Args:
        options: see :class:`MaskTokenEncoder`; ``proxy`` is a timm ``Eva`` whose ``head`` is the
            projection and whose blocks normalize before attention.
    """

    finetuned_patterns: ClassVar = {
        "none": (),
        "all": ("*",),
        "before_proj": ("cls_token", "pos_embed", "patch_embed.*", "blocks.*"),
        "attention": (
            "pos_embed",
            "blocks.*.attn.q_proj.weight",
            "blocks.*.attn.v_proj.weight",
            "blocks.*.attn.qkv.weight",
        ),
    }
    proxy: Eva

    @configurable
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        store_by_published_keys(self.proxy)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`; open_clip keeps the tower in a ``TimmModel``."""
        arguments = super().from_config(cfg)
        tower = arguments["proxy"]
        return {**arguments, "proxy": getattr(tower, "trunk", tower)}

    @classmethod
    def _blocks_of(cls, tower: nn.Module) -> nn.ModuleList:
        # timm's ``Eva`` also serves CLIP models with other parts, such as PE-Core.
        if not (
            isinstance(tower, Eva)
            and isinstance(tower.blocks[0], EvaBlock)
            and tower.blocks[0].gamma_1 is None
            and tower.attn_pool is None
            and isinstance(tower.norm_pre, nn.Identity)
        ):
            raise InputError(
                "EVACLIPViT needs an EVA-CLIP model whose blocks normalize before attention "
                f"(EVA01-g-14*, EVA02-B-16, EVA02-L-14*), found a {type(tower).__name__}; check "
                "VISUAL_ENCODER.MODEL_NAME"
            )
        return tower.blocks

    @property
    def patch_size(self) -> int:
        """See :class:`MaskTokenEncoder`."""
        return self.proxy.patch_embed.patch_size[0]

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens, and the rotary embedding of the patches (EVA-02)."""
        trunk: Any = self.proxy  # its optional parts are not typed
        maps = trunk.patch_embed.proj(images)
        grid = (maps.shape[-2], maps.shape[-1])
        patches = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([trunk.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + resize_position_embedding(trunk.pos_embed[0], grid)
        if trunk.rope is None:
            return tokens, None
        with torch.inference_mode(False):  # kept by timm; training may need it after an evaluation
            trunk.rope.update_feat_shape(list(grid))
        return tokens, trunk.rope.get_embed()

    def _run_image_block(self, block: Any, tokens: Tensor, context: Any) -> Tensor:
        return block(tokens, rope=context)

    def _project(self, block: Any, tokens: Tensor, parts: str, context: Any) -> tuple[Tensor, ...]:
        attention = block.attn
        normed = block.norm1(tokens)
        if attention.qkv is None:
            projections = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}
            projected = tuple(projections[part](normed) for part in parts)
        else:
            bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
            projected = project_fused(normed, attention.qkv.weight, bias, parts)
        heads = (split_heads(part, self.num_heads) for part in projected)
        return tuple(
            _rotate_patches(part, context) if context is not None and letter != "v" else part
            for letter, part in zip(parts, heads, strict=True)
        )

    def _finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        attended = block.attn.proj(block.attn.norm(join_heads(attended)))
        tokens = tokens + block.drop_path1(attended)
        return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.proxy.head(self.proxy.norm(tokens))


def _rotate_patches(tokens: Tensor, rotary: Tensor) -> Tensor:
    """Rotary embedding of tokens [B, heads, 1 + h*w, d], except for the class token (first)."""
    rotated = apply_rot_embed_cat(tokens[:, :, 1:], rotary).type_as(tokens)
    return torch.cat([tokens[:, :, :1], rotated], dim=2)
