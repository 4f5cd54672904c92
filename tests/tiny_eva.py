"""CLIP models of a few thousand parameters, one of every kind that weights are published for.

``EVA01-tiny``, ``EVA02-tiny``, ``ViT-tiny``, ``ViT-tiny-quickgelu``, ``RN-tiny``, ``Pool-tiny`` (as
SigLIP): importing this module makes them known to timm and open_clip.
"""

from pathlib import Path
from typing import Any

import open_clip
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

# Encoders with the model of each; ConvNeXt is that of tests.tiny_models.
ENCODERS = {
    "ConvNeXt": (),
    "ViT": ("CLIPViT", "ViT-tiny"),
    "EVA02": ("EVACLIPViT", "EVA02-tiny"),
}
SIZE: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
}


@register_model
def tiny_eva01(pretrained: bool = False, **kwargs: Any) -> Eva:
    return _eva(kwargs)


@register_model
def tiny_eva02(pretrained: bool = False, **kwargs: Any) -> Eva:
    return _eva(
        kwargs,
        mlp_ratio=4 * 2 / 3,
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(4, 4),
    )


@register_model
def tiny_pool(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    return VisionTransformer(**SIZE, class_token=False, **_known(kwargs))


def _eva(kwargs: dict[str, Any], **architecture: Any) -> Eva:
    return Eva(**SIZE, **architecture, **_known(kwargs))


def _known(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without what timm's factory passes to every model about downloads."""
    return {k: v for k, v in kwargs.items() if not k.startswith(("pretrained", "cache"))}


open_clip.add_model_config(Path(__file__).parent / "clip" / "model_configs")


def options_of(name: str) -> tuple[Any, ...]:
    """Config keys of a tiny mask classifier."""
    if not ENCODERS[name]:
        return ()
    encoder, model = ENCODERS[name]
    tower = "EVACLIPTextEncoder" if encoder == "EVACLIPViT" else "CLIPTextEncoder"
    return (
        *(".VISUAL_ENCODER.NAME", encoder, ".VISUAL_ENCODER.MODEL_NAME", model),
        *(".VISUAL_ENCODER.SIZE_DIVISIBILITY", 8),
        *(".VISUAL_ENCODER.MASK_PRIOR_BEG", 2),
        *(".TEXT_ENCODER.NAME", tower, ".TEXT_ENCODER.MODEL_NAME", model),
    )
