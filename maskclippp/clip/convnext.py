"""CLIP ConvNeXt of OpenCLIP as a mask classifier: masks pool the last stage's feature map."""

from collections.abc import Iterator
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from typing_extensions import Unpack

from maskclippp.clip.mask_pooling import pool_masks
from maskclippp.clip.visual_encoder import (
    EncodedImages,
    EncoderOptions,
    FeatureShape,
    VisualEncoder,
)
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class CLIPConvNeXt(VisualEncoder):
    """An open_clip ConvNeXt image tower that embeds masks.

    FINETUNE_TYPE: none | all | before_proj (everything but the final projection) | before_s4 (stem
    and stages 1 to 3) | after_s4 (stage 4 and what follows).

    Args:
        downsample_method: how masks are resized to the feature grid.
        options: see :class:`VisualEncoder`; ``proxy`` is an open_clip ``TimmModel`` with ``trunk``
            (stem, four stages, head) and ``head``.
    """

    valid_features = ("m_embs", "p_embs", "i_embs", "stage1", "stage2", "stage3", "stage4")
    finetuned_patterns: ClassVar = {
        "none": (),
        "all": ("*",),
        "before_proj": ("trunk.*",),
        "before_s4": ("trunk.stem.*", "trunk.stages.0.*", "trunk.stages.1.*", "trunk.stages.2.*"),
        "after_s4": ("trunk.stages.3.*", "trunk.norm_pre.*", "trunk.head.*", "head.*"),
    }
    proxy: TimmModel

    @configurable
    def __init__(
        self, *, downsample_method: str = "bilinear", **options: Unpack[EncoderOptions]
    ) -> None:
        super().__init__(**options)
        trunk = getattr(self.proxy, "trunk", self.proxy)
        if not isinstance(trunk, ConvNeXt):
            raise InputError(
                "CLIPConvNeXt needs an open_clip model with a timm ConvNeXt image tower "
                f"(convnext_*), found a {type(trunk).__name__}; check VISUAL_ENCODER.MODEL_NAME"
            )
        self.downsample_method = downsample_method

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`."""
        if cfg.MASK_PRIOR_BEG != 5:
            raise InputError(
                "CLIPConvNeXt: MASK_PRIOR_BEG must be 5 (masks pool the map after the fourth "
                f"stage, as in every published model), found {cfg.MASK_PRIOR_BEG}"
            )
        return {**super().from_config(cfg), "downsample_method": cfg.DOWNSAMPLE_METHOD}

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the trunk, pool masks, embed. See :class:`VisualEncoder`."""
        trunk = self.proxy.trunk
        self._check_one_cell(batch, trunk.feature_info[-1]["reduction"])
        encoded = EncodedImages(batch)
        features = trunk.stem(batch.images)
        for number, stage in enumerate(trunk.stages, start=1):
            features = self._run_block(stage, features)
            self._keep(encoded, f"stage{number}", features)
        features = trunk.norm_pre(features)
        self._keep(encoded, "p_embs", lambda: self._embed_cells(features))
        self._keep(encoded, "i_embs", lambda: self._embed(features)[:, :, None, None])
        if with_masks:
            grid = (features.shape[-2], features.shape[-1])
            masks = batch.downsampled_masks(grid, self.downsample_method)
            pooled = pool_masks(features, masks, batch.masks_per_image)
            encoded.mask_embeddings = self._embed(pooled[:, :, None, None])
            encoded.mask_areas = masks.sum(dim=(1, 2))
        return encoded

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """See :class:`VisualEncoder`."""
        return {
            f"stage{number}{self.feature_suffix}": FeatureShape(info["num_chs"], info["reduction"])
            for number, info in enumerate(self.proxy.trunk.feature_info, start=1)
            if f"stage{number}" in self.out_features
        }

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return iter(self.proxy.trunk.stages)

    def _embed(self, maps: Tensor) -> Tensor:
        """Pretrained pooling head and projection: [N, C, h, w] -> [N, D]."""
        return self.proxy.head(self.proxy.trunk.head(maps))

    def _embed_cells(self, features: Tensor) -> Tensor:
        """The same head on every cell alone: [B, C, h, w] -> [B, D, h, w]."""
        batch, _, height, width = features.shape
        cells = features.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]
        return self._embed(cells).view(batch, height, width, -1).permute(0, 3, 1, 2)
