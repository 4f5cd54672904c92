"""CLIP ConvNeXt of OpenCLIP as a mask classifier: masks pool the last stage's feature map."""

from typing import Any

from detectron2.config import CfgNode
from timm.models.convnext import ConvNeXt
from torch import nn

from maskclippp.clip.average import AverageEncoder
from maskclippp.errors import InputError
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class CLIPConvNeXt(AverageEncoder):
    """An open_clip ConvNeXt image tower that embeds masks.

    FINETUNE_TYPE: none | all | before_proj (everything but the final projection) | before_s4 (stem
    and stages 1 to 3) | after_s4 (stage 4 and what follows).
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`AverageEncoder`."""
        if cfg.MASK_PRIOR_BEG != 5:
            raise InputError(
                "CLIPConvNeXt: MASK_PRIOR_BEG must be 5 (masks pool the map after the fourth "
                f"stage, as in every published model), found {cfg.MASK_PRIOR_BEG}"
            )
        return super().from_config(cfg)

    @classmethod
    def _check_tower(cls, proxy: nn.Module) -> None:
        trunk = getattr(proxy, "trunk", proxy)
        if not isinstance(trunk, ConvNeXt):
            raise InputError(
                "CLIPConvNeXt needs an open_clip model with a timm ConvNeXt image tower "
                f"(convnext_*), found a {type(trunk).__name__}; check VISUAL_ENCODER.MODEL_NAME"
            )
