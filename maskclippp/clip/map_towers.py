"""Networks of timm whose features are maps: ConvNeXt, FastViT (MobileCLIP), Swin."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from timm.models.convnext import ConvNeXt
from timm.models.fastvit import FastVit
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from typing_extensions import override

from maskclippp.clip.depthwise import use_fast_depthwise
from maskclippp.clip.finetuning import Patterns
from maskclippp.clip.towers import Size, Tower

# What precedes the stages of each network, the stages, what follows them before pooling.
_PARTS: dict[type, tuple[str, str, str]] = {
    ConvNeXt: ("stem", "stages", "norm_pre"),
    FastVit: ("stem", "stages", "final_conv"),
    SwinTransformer: ("patch_embed", "layers", "norm"),
}


class MapTower(Tower):
    """A hierarchical network in an open_clip ``TimmModel``; its head averages the last map."""

    block_name = "stage"
    pooling = "avg"
    _early = ("stem", "patch_embed", "stages.[012]", "layers.[012]")
    finetuned_patterns: Mapping[str, Patterns] = {
        "none": (),
        "all": ("*",),
        "before_proj": ("trunk.*", "!trunk.head.fc.*"),
        "before_s4": tuple(f"trunk.{name}.*" for name in _early),
        "after_s4": ("*", *(f"!trunk.{name}.*" for name in _early)),
    }

    def __init__(self, proxy: Any) -> None:
        trunk = proxy.trunk
        self.proxy = proxy
        self.trunk = trunk
        first, stages, last = next(
            parts for kind, parts in _PARTS.items() if isinstance(trunk, kind)
        )
        self.first: nn.Module = getattr(trunk, first)
        self.blocks = getattr(trunk, stages)
        self.last: nn.Module = getattr(trunk, last)
        self.stride = trunk.feature_info[-1]["reduction"]
        # timm's Swin has its channels last.
        self.channels_last = isinstance(trunk, SwinTransformer)
        use_fast_depthwise(trunk)
        if self.channels_last:
            _accept_all_sizes(trunk)

    @staticmethod
    def supports(trunk: nn.Module) -> bool:
        """Whether the network is one of these."""
        return isinstance(trunk, tuple(_PARTS))

    def embed(self, images: Tensor) -> tuple[Tensor, None]:
        """See :class:`Tower`."""
        return self.first(images), None

    @override
    def run_block(self, block: Any, features: Tensor, context: None) -> Tensor:
        """See :class:`Tower`."""
        return block(features)

    def norm(self, features: Tensor) -> Tensor:
        """See :class:`Tower`."""
        normed: Tensor = self.last(features)
        return normed

    @override
    def as_map(self, features: Tensor, grid: Size) -> Tensor:
        """See :class:`Tower`."""
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`Tower`; the head of a 1 x 1 map."""
        maps = pooled[:, None, None] if self.channels_last else pooled[:, :, None, None]
        embedded: Tensor = self.proxy.head(self.trunk.head(maps))
        return embedded


def _accept_all_sizes(swin: Any) -> None:
    """Make a Swin compute its attention masks from its input, as it does if built for any size.

    Its own ``set_input_size`` would scale the windows, and with them tables that are trained.
    """
    swin.patch_embed.strict_img_size = False
    for layer in swin.layers:
        for block in layer.blocks:
            block.dynamic_mask = True


def global_average(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C]."""
    return F.adaptive_avg_pool2d(maps, 1).flatten(1)
