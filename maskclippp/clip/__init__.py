"""CLIP towers: visual encoders with masks, text towers, and where their weights come from."""

from maskclippp.clip.attention_pool import AttentionPoolEncoder
from maskclippp.clip.average import AverageEncoder
from maskclippp.clip.convnext import CLIPConvNeXt
from maskclippp.clip.eva import EVACLIPViT
from maskclippp.clip.mask_tokens import MaskTokenEncoder
from maskclippp.clip.resnet import CLIPResNet
from maskclippp.clip.swin import D2SwinTransformer
from maskclippp.clip.text_tower import (
    CLIPTextEncoder,
    EVACLIPTextEncoder,
    TextTower,
    build_text_tower,
)
from maskclippp.clip.visual_encoder import EncodedImages, VisualEncoder, build_visual_encoder
from maskclippp.clip.vit import CLIPViT

__all__ = [
    "AttentionPoolEncoder",
    "AverageEncoder",
    "CLIPConvNeXt",
    "CLIPResNet",
    "CLIPTextEncoder",
    "CLIPViT",
    "D2SwinTransformer",
    "EVACLIPTextEncoder",
    "EVACLIPViT",
    "EncodedImages",
    "MaskTokenEncoder",
    "TextTower",
    "VisualEncoder",
    "build_text_tower",
    "build_visual_encoder",
]
