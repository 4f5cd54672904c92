"""CLIP ResNet as a mask classifier: each mask is a query of the pretrained attention pool.

The query of a mask is that of the image, the mean of the feature map; the bias of
:mod:`maskclippp.clip.mask_attention` restricts it to the cells of the mask (arXiv 2412.11464,
section 3).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from typing_extensions import Unpack

from maskclippp.clip.finetuning import Patterns
from maskclippp.clip.mask_attention import (
    OUTSIDE,
    MaskAttentionSettings,
    as_map,
    attend_to_masks,
    join_heads,
    mask_attention_bias,
    split_heads,
    with_prefix,
)
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.clip.visual_encoder import (
    EncodedImages,
    EncoderOptions,
    VisualEncoder,
    counting_once,
)
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch, unpad_ragged
from maskclippp.registry import VISUAL_ENCODER_REGISTRY

_LAYERS = ("layer1", "layer2", "layer3", "layer4")


@VISUAL_ENCODER_REGISTRY.register()
class CLIPResNet(VisualEncoder):
    """An open_clip ResNet image tower that embeds masks.

    FINETUNE_TYPE: none | all | before_proj (everything but the final projection) | attention
    (query and value weights and position embedding of the pool).

    Args:
        mask_attention: how masks attend to the cells of the last feature map.
        sees_prefix: they also attend to the mean token. A mask over everything then has the
            embedding of the image.
        options: see :class:`VisualEncoder`; ``proxy`` is an open_clip ``ModifiedResNet``: stem,
            four layers, attention pool.
    """

    valid_features = ("m_embs", "p_embs", "i_embs", *_LAYERS)
    finetuned_patterns: Mapping[str, Patterns] = {
        "none": (),
        "all": ("*",),
        "before_proj": ("conv*", "bn*", "layer*", "attnpool.pos*", "attnpool.[kqv]_proj.*"),
        "attention": ("attnpool.positional_embedding", "attnpool.[qv]_proj.weight"),
    }
    proxy: ModifiedResNet
    stride = 32  # pixels per side of a cell of the last feature map

    @configurable
    def __init__(
        self,
        *,
        mask_attention: MaskAttentionSettings,
        sees_prefix: bool = False,
        **options: Unpack[EncoderOptions],
    ) -> None:
        proxy = options["proxy"]
        if not isinstance(proxy, ModifiedResNet):
            raise InputError(
                "CLIPResNet needs an open_clip model with CLIP's own ResNet as image tower (RN50, "
                f"RN101, RN50x4, RN50x16, RN50x64), found a {type(proxy).__name__}; check "
                "VISUAL_ENCODER.MODEL_NAME"
            )
        super().__init__(**options)
        self.settings = mask_attention
        self.sees_prefix = sees_prefix
        self.mask_logit_scale = mask_attention.make_log_scale(
            proxy.attnpool.num_heads, frozen=self.frozen
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`."""
        attention = MaskAttentionSettings.from_config(cfg)
        return {**super().from_config(cfg), "mask_attention": attention}

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return (getattr(self.proxy, name) for name in _LAYERS)

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the trunk, then the pool if an output needs it. See :class:`VisualEncoder`."""
        self._check_one_cell(batch, self.stride)
        encoded = EncodedImages(batch)
        features = self.proxy.stem(batch.images)
        for name, layer in zip(_LAYERS, self.blocks(), strict=True):
            features = self._run_block(counting_once(layer), features)
            self._keep(encoded, name, features)
        if with_masks or {"p_embs", "i_embs"} & set(self.out_features):
            self._pool(encoded, features, with_masks=with_masks)
        return encoded

    def _pool(self, encoded: EncodedImages, features: Tensor, *, with_masks: bool) -> None:
        """The attention pool: of the image, of every cell, of every mask."""
        pool = self.proxy.attnpool
        grid = (features.shape[-2], features.shape[-1])
        tokens = self._tokens(features)
        query, key, value = (
            self._heads(pool.q_proj, tokens[:, :1]),
            self._heads(pool.k_proj, tokens),
            self._heads(pool.v_proj, tokens),
        )
        self._keep(encoded, "i_embs", lambda: as_map(self._attend(query, key, value), (1, 1)))
        # Cells and masks do not attend to the mean token, which comes first.
        cells = key[:, :, 1:], value[:, :, 1:]
        self._keep(
            encoded, "p_embs", lambda: as_map(self._attend_to_own_cell(tokens[:, 1:], *cells), grid)
        )
        if with_masks:
            counts = encoded.batch.masks_per_image
            masks = encoded.batch.downsampled_masks(grid, self.settings.downsample_method)
            bias = mask_attention_bias(masks, self.mask_logit_scale, self.settings.threshold)
            # All masks of an image have the same query; only their bias differs.
            queries = query.expand(-1, -1, max(counts), -1)
            if self.sees_prefix:
                attended = attend_to_masks(queries, key, value, with_prefix(bias, 1), counts)
            else:
                attended = attend_to_masks(queries, *cells, bias, counts)
            encoded.mask_embeddings = unpad_ragged(self._embed(attended), counts)
            encoded.mask_areas = masks.sum(dim=(1, 2))

    def _tokens(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, 1 + h*w, C]: the mean of the cells, the cells; with positions."""
        cells = features.flatten(2).transpose(1, 2)
        tokens = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
        grid = (features.shape[-2], features.shape[-1])
        return tokens + resize_position_embedding(self.proxy.attnpool.positional_embedding, grid)

    def _heads(self, projection: nn.Linear, tokens: Tensor) -> Tensor:
        """Project tokens [B, L, C] -> [B, heads, L, C / heads]."""
        return split_heads(projection(tokens), self.proxy.attnpool.num_heads)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """The pool's attention: [B, heads, L, C / heads] each -> [B, L, D]."""
        return self._embed(F.scaled_dot_product_attention(query, key, value, attn_mask=bias))

    def _attend_to_own_cell(self, cells: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each cell [B, h*w, C] attends to itself, and to the others with the bias ``OUTSIDE``.

        The others cannot be left out: their weights do not vanish if logits differ by as much as
        ``OUTSIDE``, and the logits of a trained pool are unbounded.
        """
        num_cells = cells.shape[1]
        # One table for all images and heads.
        bias = key.new_full((num_cells, num_cells), OUTSIDE).fill_diagonal_(0)
        return self._attend(self._heads(self.proxy.attnpool.q_proj, cells), key, value, bias)

    def _embed(self, attended: Tensor) -> Tensor:
        """Join heads and project: [B, heads, L, C / heads] -> [B, L, D]."""
        return self.proxy.attnpool.c_proj(join_heads(attended))
