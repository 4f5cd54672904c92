"""The vision transformers of CLIP and OpenCLIP as mask classifiers."""

from typing import Any, ClassVar

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from typing_extensions import override

from maskclippp.clip.mask_attention import join_heads, split_heads
from maskclippp.clip.mask_tokens import MaskTokenEncoder, project_fused
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.errors import InputError
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class CLIPViT(MaskTokenEncoder):
    """A CLIP vision transformer that embeds masks.

    FINETUNE_TYPE: none | all | before_proj (all but the final norm and the projection) | attention
    (fused query, key and value weights and position embedding).

    ``proxy`` is an open_clip ``VisionTransformer``; the class token gives the image embedding.
    """

    finetuned_patterns: ClassVar = {
        "none": (),
        "all": ("*",),
        "before_proj": (
            *("conv1.*", "class_embedding", "positional_embedding"),
            *("ln_pre.*", "transformer.*"),
        ),
        "attention": ("positional_embedding", "transformer.resblocks.*.attn.in_proj_weight"),
    }
    proxy: VisionTransformer

    @classmethod
    def _blocks_of(cls, tower: nn.Module) -> nn.ModuleList:
        if not (
            isinstance(tower, VisionTransformer)
            and tower.attn_pool is None
            and tower.pool_type == "tok"
            and not tower.final_ln_after_pool
            and all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
        ):
            raise InputError(
                "CLIPViT needs an open_clip model with CLIP's own vision transformer (ViT-B-16, "
                f"ViT-L-14-336, ...), found another {type(tower).__name__}; check "
                "VISUAL_ENCODER.MODEL_NAME"
            )
        return tower.transformer.resblocks

    @property
    def patch_size(self) -> int:
        """See :class:`MaskTokenEncoder`."""
        return self.proxy.patch_size[0]

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, None]:
        tower = self.proxy
        maps = tower.conv1(images)
        patches = maps.flatten(2).transpose(1, 2)
        class_tokens = tower.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([class_tokens, patches], dim=1)
        grid = (maps.shape[-2], maps.shape[-1])
        positions = resize_position_embedding(tower.positional_embedding, grid)
        return tower.ln_pre(tokens + positions), None

    @override
    def _run_image_block(self, block: Any, tokens: Tensor, context: None) -> Tensor:
        return block(tokens)

    @override
    def _project(self, block: Any, tokens: Tensor, parts: str, context: None) -> tuple[Tensor, ...]:
        attention = block.attn
        projected = project_fused(
            block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias, parts
        )
        return tuple(split_heads(part, self.num_heads) for part in projected)

    def _finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + block.ls_1(block.attn.out_proj(join_heads(attended)))
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.proxy.ln_post(tokens) @ self.proxy.proj
