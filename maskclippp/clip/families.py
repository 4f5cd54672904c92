"""The pooling family of a model: which encoder embeds masks with it."""

import torch
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.models.eva import Eva
from torch import nn

from maskclippp.clip.map_towers import MapTower
from maskclippp.clip.model_names import model_config
from maskclippp.clip.open_clip_vit import OpenClipViT
from maskclippp.clip.timm_vit import TimmViT
from maskclippp.clip.towers import Tower
from maskclippp.errors import InputError

_ENCODERS = {
    "token": "MaskTokenEncoder",
    "map": "AttentionPoolEncoder",
    "avg": "AverageEncoder",
}


def tower_of(proxy: nn.Module) -> Tower:
    """The parts of an image tower of open_clip or timm; an InputError if it is of another kind."""
    if isinstance(proxy, ModifiedResNet):
        raise InputError(
            "VISUAL_ENCODER.NAME: a CLIP ResNet (RN*) needs CLIPResNet or auto, found another name"
        )
    if isinstance(proxy, VisionTransformer):
        return OpenClipViT(proxy)
    if MapTower.supports(getattr(proxy, "trunk", proxy)):
        return MapTower(proxy)
    return TimmViT(proxy)


def encoder_of_tower(proxy: nn.Module) -> str:
    """The registered name of the encoder for an image tower."""
    if isinstance(proxy, ModifiedResNet):
        return "CLIPResNet"
    tower = tower_of(proxy)
    if tower.pooling == "token" and isinstance(getattr(proxy, "trunk", proxy), Eva):
        return "EVACLIPViT"  # for the key names of published checkpoints
    return _ENCODERS[tower.pooling]


def encoder_name(model_name: str) -> str:
    """The encoder for a model of open_clip, ``VISUAL_ENCODER.NAME: auto``.

    Raises:
        InputError: an unknown model, or one that no encoder supports.
    """
    config = model_config(model_name)
    with torch.device("meta"):
        tower = _build_vision_tower(config["embed_dim"], config["vision_cfg"])
    return encoder_of_tower(tower)
