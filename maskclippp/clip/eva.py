"""The image towers of EVA-CLIP (EVA-02 B/16, L/14, E/14; EVA-01 g/14) as mask classifiers."""

from typing import Any

from detectron2.config import CfgNode, configurable
from timm.models.eva import Eva
from torch import nn

from maskclippp.clip.eva_keys import store_by_published_keys
from maskclippp.clip.mask_tokens import MaskTokenEncoder
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
            projection.
    """

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
    def _check_tower(cls, proxy: nn.Module) -> None:
        # timm's ``Eva`` also serves CLIP models with other parts, such as PE-Core.
        if not (
            isinstance(proxy, Eva)
            and proxy.attn_pool is None
            and isinstance(proxy.norm_pre, nn.Identity)
        ):
            raise InputError(
                "EVACLIPViT needs an EVA-CLIP model (EVA01-g-14*, EVA02-*), found a "
                f"{type(proxy).__name__}; check VISUAL_ENCODER.MODEL_NAME"
            )
