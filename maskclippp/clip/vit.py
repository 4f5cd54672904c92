"""The vision transformers of CLIP and OpenCLIP as mask classifiers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from maskclippp.clip.mask_attention import MaskAttentionSettings, join_heads, split_heads
from maskclippp.clip.mask_tokens import (
    MaskTokenEncoder,
    mask_token_arguments,
    project_fused,
)
from maskclippp.clip.open_clip_models import load_visual_tower
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.clip.visual_encoder import EncoderOptions
from maskclippp.errors import InputError
from maskclippp.registry import VISUAL_ENCODER_REGISTRY

if TYPE_CHECKING:
    from typing_extensions import Unpack


@VISUAL_ENCODER_REGISTRY.register()
class CLIPViT(MaskTokenEncoder):
    """A CLIP vision transformer that embeds masks.

    FINETUNE_TYPE: none | all | before_proj (all but the final norm and the projection) | attention
    (fused query, key and value weights and position embedding).

    Args:
        proxy: open_clip ``VisionTransformer`` whose image embedding is that of the class token.
        first_block, mask_attention, options: see :class:`MaskTokenEncoder`.
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

    @configurable
    def __init__(
        self,
        *,
        proxy: VisionTransformer,
        first_block: int,
        mask_attention: MaskAttentionSettings,
        **options: "Unpack[EncoderOptions]",
    ) -> None:
        if not _is_plain_clip(proxy):
            raise InputError(
                "CLIPViT needs an open_clip model with CLIP's own vision transformer (ViT-B-16, "
                f"ViT-L-14-336, ...), found another {type(proxy).__name__}; check "
                "VISUAL_ENCODER.MODEL_NAME"
            )
        blocks = proxy.transformer.resblocks
        super().__init__(
            proxy=proxy,
            depth=len(blocks),
            num_heads=blocks[0].attn.num_heads,
            patch_size=proxy.patch_size[0],
            first_block=first_block,
            mask_attention=mask_attention,
            **options,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from a VISUAL_ENCODER config node; loads the pretrained weights."""
        return {
            **mask_token_arguments(cfg),
            "proxy": load_visual_tower(cfg),
        }

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return iter(self.proxy.transformer.resblocks)

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, None]:
        tower = self.proxy
        maps = tower.conv1(images)
        patches = maps.flatten(2).transpose(1, 2)
        class_tokens = tower.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([class_tokens, patches], dim=1)
        grid = (maps.shape[-2], maps.shape[-1])
        positions = resize_position_embedding(tower.positional_embedding, grid)
        return tower.ln_pre(tokens + positions), None

    def _run_image_block(self, block: Any, tokens: Tensor, context: None) -> Tensor:
        return block(tokens)

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


def _is_plain_clip(tower: nn.Module) -> bool:
    return (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.final_ln_after_pool
        and all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
    )
