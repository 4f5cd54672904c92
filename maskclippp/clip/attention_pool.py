"""Towers that end in an attention pool with a learned query (SigLIP, SigLIP 2, PE-Core).

Each mask asks the pool the question that the model asks about the whole image: the pool's own
query, with a bias toward the cells of the mask. What follows the pool's attention is the model's.
Prefix tokens, such as PE-Core's class token, belong to every mask.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from typing_extensions import Unpack

from maskclippp.clip.families import tower_of
from maskclippp.clip.mask_attention import (
    MaskAttentionSettings,
    as_map,
    attend_to_masks,
    join_heads,
    mask_attention_bias,
    split_heads,
    with_prefix,
)
from maskclippp.clip.timm_vit import TimmViT
from maskclippp.clip.towers import Size
from maskclippp.clip.visual_encoder import EncodedImages, EncoderOptions, VisualEncoder
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch, unpad_ragged
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class AttentionPoolEncoder(VisualEncoder):
    """A timm vision transformer with an attention pool that embeds masks.

    OUT_FEATURES: ``m_embs``, ``p_embs`` (every patch pooled alone), ``i_embs``, ``blockN``
    (patches after block N, [B, C, h, w]).

    Args:
        mask_attention: how masks attend to the patches.
        options: see :class:`VisualEncoder`; ``proxy`` is an open_clip ``TimmModel``.
    """

    @configurable
    def __init__(
        self, *, mask_attention: MaskAttentionSettings, **options: Unpack[EncoderOptions]
    ) -> None:
        tower = tower_of(options["proxy"])
        if not isinstance(tower, TimmViT) or tower.pooling != "map":
            raise InputError(
                f"{type(self).__name__} needs a model with an attention pool (SigLIP, PE-Core), "
                f"found one that pools by {tower.pooling!r}; set VISUAL_ENCODER.NAME to auto"
            )
        names = (f"block{number}" for number in range(1, len(tower.blocks) + 1))
        super().__init__(
            **options,
            valid_features=("m_embs", "p_embs", "i_embs", *names),
            finetuned_patterns=tower.finetuned_patterns,
        )
        self.tower = tower
        self.settings = mask_attention
        self.mask_logit_scale = mask_attention.make_log_scale(
            tower.trunk.attn_pool.num_heads, frozen=self.frozen
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`."""
        attention = MaskAttentionSettings.from_config(cfg)
        return {**super().from_config(cfg), "mask_attention": attention}

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return iter(self.tower.blocks)

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the blocks, then the pool. See :class:`VisualEncoder`."""
        tower = self.tower
        grid = self._check_divides(batch, tower.stride)
        encoded = EncodedImages(batch)
        tokens, context = tower.embed(batch.images)
        for number, block in enumerate(tower.blocks, start=1):
            tokens = self._run_block(tower.run_block, block, tokens, context)
            self._keep(encoded, f"block{number}", partial(tower.as_map, tokens, grid))
        if with_masks or {"p_embs", "i_embs"} & set(self.out_features):
            self._pool(encoded, tower.norm(tokens), grid, with_masks=with_masks)
        return encoded

    def _pool(
        self, encoded: EncodedImages, tokens: Tensor, grid: Size, *, with_masks: bool
    ) -> None:
        """The attention pool: of the image, of every patch, of every mask."""
        pool: Any = self.tower.trunk.attn_pool
        prefix = self.tower.prefix
        query = pool.q_norm(split_heads(pool.q(pool.latent), pool.num_heads))
        query = query.expand(len(tokens), -1, -1, -1)
        key, value = (split_heads(part, pool.num_heads) for part in pool.kv(tokens).chunk(2, -1))
        key = pool.k_norm(key)
        self._keep(
            encoded,
            "i_embs",
            lambda: as_map(self._embed(F.scaled_dot_product_attention(query, key, value)), (1, 1)),
        )
        self._keep(encoded, "p_embs", lambda: as_map(self._embed(value[:, :, prefix:]), grid))
        if with_masks:
            counts = encoded.batch.masks_per_image
            masks = encoded.batch.downsampled_masks(grid, self.settings.downsample_method)
            bias = mask_attention_bias(masks, self.mask_logit_scale, self.settings.threshold)
            # All masks of an image have the same query; only their bias differs.
            queries = query.expand(-1, -1, max(counts), -1)
            attended = attend_to_masks(queries, key, value, with_prefix(bias, prefix), counts)
            encoded.mask_embeddings = unpad_ragged(self._embed(attended), counts)
            encoded.mask_areas = masks.sum(dim=(1, 2))

    def _embed(self, attended: Tensor) -> Tensor:
        """What follows the pool's attention: [B, heads, L, d] -> [B, L, D]."""
        pool: Any = self.tower.trunk.attn_pool
        pooled = pool.proj(join_heads(attended))
        if pool.mlp is not None:
            pooled = pooled + pool.mlp(pool.norm(pooled))
        return self.tower.head(pooled)
