"""All model configurations of open_clip, shrunk to towers of a few blocks."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.factory import get_model_config
from open_clip.model import _build_vision_tower
from timm.models.vitamin import VitCfg, VitConvCfg
from torch import Tensor, nn

ALL_MODELS = sorted(
    path.stem for path in (Path(open_clip.__file__).parent / "model_configs").glob("*.json")
)

_VIT: dict[str, Any] = {"depth": 2, "embed_dim": 64, "num_heads": 2, "img_size": 224}
# Arguments of timm's networks, by the start of their names; the first that fits counts.
_SMALL: dict[str, dict[str, Any]] = {
    "convnext": {"depths": (1, 1, 1, 1), "dims": (16, 16, 32, 32)},
    "fastvit_mci3": {"layers": (1,) * 5, "embed_dims": (32, 32, 32, 64, 64)},
    "fastvit_mci4": {"layers": (1,) * 5, "embed_dims": (32, 32, 32, 64, 64)},
    "fastvit": {"layers": (1,) * 4, "embed_dims": (32, 32, 32, 64)},
    "swin": {"depths": (2, 2, 1, 1), "embed_dim": 16, "num_heads": (1, 1, 2, 2)},
    "vitamin": {
        "embed_cfg": VitCfg(
            embed_dim=(16, 32, 64),
            depths=(1, 1, 1),
            stem_width=16,
            conv_cfg=VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
            head_type="1d",
        ),
        **_VIT,
    },
    "vit_base_mci": {"depth": 1, "img_size": 64},
    "vit_relpos": {"depth": 2},
    "": _VIT,
}


def small_tower(name: str) -> nn.Module:
    """The image tower of a model, with few and narrow blocks and random weights."""
    torch.manual_seed(0)
    config = get_model_config(name)
    vision = dict(config["vision_cfg"])
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        if "timm_model_name" in vision:
            small = next(v for k, v in _SMALL.items() if vision["timm_model_name"].startswith(k))
            patch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **small}))
        elif isinstance(vision["layers"], list):
            vision |= {"layers": [1, 1, 1, 1], "width": 16, "image_size": 224}
        else:
            vision |= {"layers": 2, "width": 64, "head_width": 32, "attn_pooler_heads": 2}
        tower = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    return randomized(tower)


@torch.no_grad()
def randomized(tower: nn.Module) -> nn.Module:
    """The tower with random values of normal size, also where it starts from 0 or 1."""
    torch.manual_seed(0)
    for parameter in tower.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        else:
            # Tokens and positions of timm have one row, weights one row per output.
            fan_in = 1 if len(parameter) == 1 else parameter[0].numel()
            gain = 2.0 if parameter.ndim == 4 else 1.0
            nn.init.normal_(parameter, std=(gain / fan_in) ** 0.5)
    return tower.eval()


def native_size(tower: Any) -> tuple[int, int]:
    """Height and width of the tower's pretraining images."""
    embedding = getattr(getattr(tower, "trunk", None), "patch_embed", None)
    size = getattr(embedding, "img_size", None) or getattr(tower, "image_size", 224)
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def embedding_of(tower: nn.Module, images: Tensor) -> Tensor:
    """The tower's own image embedding; CoCa's towers give tokens too."""
    result: Any = tower(images)
    embedding: Tensor = result[0] if isinstance(result, tuple) else result
    return embedding
