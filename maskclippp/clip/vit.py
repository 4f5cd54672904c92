"""The vision transformers of CLIP and OpenCLIP as mask classifiers."""

from open_clip.transformer import VisionTransformer
from torch import nn

from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.errors import InputError
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class CLIPViT(MaskTokenEncoder):
    """A CLIP vision transformer that embeds masks.

    FINETUNE_TYPE: none | all | before_proj (all but the final norm and the projection) | attention
    (fused query, key and value weights and position embedding).

    ``proxy`` is an open_clip ``VisionTransformer``; the class token gives the image embedding.
    """

    @classmethod
    def _check_tower(cls, proxy: nn.Module) -> None:
        if not (
            isinstance(proxy, VisionTransformer)
            and proxy.attn_pool is None
            and proxy.pool_type == "tok"
        ):
            raise InputError(
                "CLIPViT needs an open_clip model with CLIP's own vision transformer (ViT-B-16, "
                f"ViT-L-14-336, ...), found another {type(proxy).__name__}; check "
                "VISUAL_ENCODER.MODEL_NAME"
            )
