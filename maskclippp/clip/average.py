"""Towers that average their features: a mask averages those inside it, and takes the tower's head.

ConvNeXt, FastViT (MobileCLIP-S), Swin, ViTamin, CLIPA and other vision transformers without a class
token (arXiv 2412.11464, section 3, for ConvNeXt).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from typing_extensions import Unpack

from maskclippp.clip.families import tower_of
from maskclippp.clip.map_towers import MapTower, global_average
from maskclippp.clip.mask_pooling import pool_masks
from maskclippp.clip.towers import Size
from maskclippp.clip.visual_encoder import (
    EncodedImages,
    EncoderOptions,
    FeatureShape,
    VisualEncoder,
    counting_once,
)
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class AverageEncoder(VisualEncoder):
    """An image tower that averages its last features, and embeds masks likewise.

    OUT_FEATURES: ``m_embs``, ``p_embs`` (every cell through the head alone), ``i_embs``, and
    ``stageN`` (maps) or ``blockN`` (transformers), [B, C, h, w].

    Args:
        downsample_method: how masks are resized to the feature grid.
        options: see :class:`VisualEncoder`; ``proxy`` is an open_clip image tower.
    """

    @configurable
    def __init__(
        self, *, downsample_method: str = "bilinear", **options: Unpack[EncoderOptions]
    ) -> None:
        self._check_tower(options["proxy"])
        tower = tower_of(options["proxy"])
        if tower.pooling != "avg":
            raise InputError(
                f"{type(self).__name__} needs a model that averages its features, found one that "
                f"pools by {tower.pooling!r}; set VISUAL_ENCODER.NAME to auto"
            )
        names = (f"{tower.block_name}{number}" for number in range(1, len(tower.blocks) + 1))
        super().__init__(
            **options,
            valid_features=("m_embs", "p_embs", "i_embs", *names),
            finetuned_patterns=tower.finetuned_patterns,
        )
        self.tower = tower
        self.downsample_method = downsample_method

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`."""
        return {**super().from_config(cfg), "downsample_method": cfg.DOWNSAMPLE_METHOD}

    @classmethod
    def _check_tower(cls, proxy: nn.Module) -> None:
        """Raise an InputError for a tower that the subclass does not serve."""

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the tower, pool masks, embed. See :class:`VisualEncoder`."""
        tower = self.tower
        grid = self._grid(batch)
        encoded = EncodedImages(batch)
        features, context = tower.embed(batch.images)
        for number, block in enumerate(tower.blocks, start=1):
            run = partial(tower.run_block, counting_once(block))
            features = self._run_block(run, features, context)
            name = f"{tower.block_name}{number}"
            self._keep(encoded, name, partial(tower.as_map, features, grid))
        maps = tower.as_map(tower.norm(features), grid)
        self._keep(encoded, "p_embs", lambda: self._embed_cells(maps))
        self._keep(encoded, "i_embs", lambda: tower.head(global_average(maps))[:, :, None, None])
        if with_masks:
            masks = batch.downsampled_masks(
                (maps.shape[-2], maps.shape[-1]), self.downsample_method
            )
            encoded.mask_embeddings = tower.head(pool_masks(maps, masks, batch.masks_per_image))
            encoded.mask_areas = masks.sum(dim=(1, 2))
        return encoded

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """See :class:`VisualEncoder`; transformers have no pyramid of maps."""
        if not isinstance(self.tower, MapTower):
            return {}
        return {
            f"stage{number}{self.feature_suffix}": FeatureShape(info["num_chs"], info["reduction"])
            for number, info in enumerate(self.tower.trunk.feature_info, start=1)
            if f"stage{number}" in self.out_features
        }

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return iter(self.tower.blocks)

    def _grid(self, batch: PaddedBatch) -> Size:
        """The feature grid; networks of convolutions leave out incomplete cells."""
        tower = self.tower
        if isinstance(tower, MapTower) and not tower.channels_last:
            self._check_one_cell(batch, tower.stride)
            height, width = batch.images.shape[-2:]
            return height // tower.stride, width // tower.stride
        return self._check_divides(batch, tower.stride)

    def _embed_cells(self, maps: Tensor) -> Tensor:
        """The head on every cell alone: [B, C, h, w] -> [B, D, h, w]."""
        batch, _, height, width = maps.shape
        embedded = self.tower.head(maps.permute(0, 2, 3, 1).flatten(0, 2))
        return embedded.view(batch, height, width, -1).permute(0, 3, 1, 2)
