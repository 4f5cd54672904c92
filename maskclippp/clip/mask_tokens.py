"""Vision transformers as mask classifiers: one mask token per mask.

Before block MASK_PRIOR_BEG a mask token is created as a copy of the class token of its image. From
then on it attends to the patches of its mask. Nothing attends to it, so the image tokens are the
same with and without masks (arXiv 2412.11464, section 3).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from typing_extensions import Unpack

from maskclippp.clip.families import tower_of
from maskclippp.clip.mask_attention import (
    MaskAttentionSettings,
    as_map,
    attend_to_masks,
    mask_attention_bias,
    with_prefix,
)
from maskclippp.clip.towers import Size, TransformerTower
from maskclippp.clip.visual_encoder import EncodedImages, EncoderOptions, VisualEncoder
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch, unpad_ragged
from maskclippp.registry import VISUAL_ENCODER_REGISTRY


@VISUAL_ENCODER_REGISTRY.register()
class MaskTokenEncoder(VisualEncoder):
    """A vision transformer whose first token is a class token, and gives the image embedding.

    OUT_FEATURES: ``m_embs`` (mask embeddings), ``p_embs`` (patch embeddings: the last block with
    its attention replaced by the values alone), ``i_embs`` (image embedding). Without the final
    projection: ``blockN`` (patches after block N, [B, C, h, w]), ``i_embsN`` (class token after
    block N, [B, C]), ``m_embs-k`` (mask tokens k blocks before the end, [N, C]).

    Args:
        first_block: the first block with mask tokens (MASK_PRIOR_BEG), counted from 1; None: the
            third before the end, as in published models.
        mask_attention: how they attend.
        sees_prefix: they also attend to the class token, and registers if there are any. A mask
            over everything then has the embedding of the image. No published model does it.
        options: see :class:`VisualEncoder`; ``proxy`` is an image tower of open_clip, or a trunk
            of timm.
    """

    @configurable
    def __init__(
        self,
        *,
        first_block: int | None,
        mask_attention: MaskAttentionSettings,
        sees_prefix: bool = False,
        **options: Unpack[EncoderOptions],
    ) -> None:
        self._check_tower(options["proxy"])
        tower = tower_of(options["proxy"])
        if not isinstance(tower, TransformerTower) or tower.pooling != "token":
            raise InputError(
                f"{type(self).__name__} needs a vision transformer with a class token, found a "
                f"model that pools by {tower.pooling!r}; set VISUAL_ENCODER.NAME to auto"
            )
        depth = len(tower.blocks)
        if first_block is None:
            first_block = max(1, depth - 2)
        if not 1 <= first_block <= depth:
            raise InputError(
                f"{type(self).__name__}: MASK_PRIOR_BEG is the first block with mask tokens; "
                f"expected 1..{depth} for this model of {depth} blocks, found {first_block}"
            )
        super().__init__(
            **options,
            valid_features=(
                *("m_embs", "p_embs", "i_embs"),
                *(f"m_embs-{back}" for back in range(1, depth - first_block + 1)),
                *(f"block{number}" for number in range(1, depth + 1)),
                *(f"i_embs{number}" for number in range(1, depth + 1)),
            ),
            finetuned_patterns=tower.finetuned_patterns,
        )
        self.tower = tower
        self.depth = depth
        self.first_block = first_block
        self.settings = mask_attention
        self.sees_prefix = sees_prefix
        # [blocks with mask tokens, heads]; the last block comes first, as in published checkpoints
        self.mask_logit_scale = mask_attention.make_log_scale(
            depth - first_block + 1, tower.num_heads, frozen=self.frozen
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`."""
        return {
            **super().from_config(cfg),
            "first_block": cfg.MASK_PRIOR_BEG or None,
            "mask_attention": MaskAttentionSettings.from_config(cfg),
        }

    @classmethod
    def _check_tower(cls, proxy: nn.Module) -> None:
        """Raise an InputError for a tower that the subclass does not serve."""

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return iter(self.tower.blocks)

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the tower, and mask tokens alongside. See :class:`VisualEncoder`."""
        tower = self.tower
        grid = self._check_divides(batch, tower.stride)
        counts = batch.masks_per_image
        last = self.depth
        # After the last block only mask tokens are needed, unless an output uses the image tokens.
        finish_image = bool({"i_embs", f"i_embs{last}", f"block{last}"} & set(self.out_features))
        encoded = EncodedImages(batch)
        masks = mask_tokens = torch.empty(0)
        if with_masks:
            masks = batch.downsampled_masks(grid, self.settings.downsample_method)
            encoded.mask_areas = masks.sum(dim=(1, 2))
        tokens, context = tower.embed(batch.images)
        for number, block in enumerate(self.blocks(), start=1):
            if number == last:
                self._keep(encoded, "p_embs", partial(self._embed_cells, block, tokens, grid))
            if not with_masks or number < self.first_block:
                tokens = self._run_block(tower.run_block, block, tokens, context)
            else:
                if number == self.first_block:
                    mask_tokens = tokens[:, :1].expand(-1, max(counts), -1)
                tokens, mask_tokens = self._run_block(
                    self._run_block_with_masks,
                    *(block, tokens, mask_tokens, context),
                    masks=masks,
                    masks_per_image=counts,
                    log_scale=self.mask_logit_scale[last - number],
                    update_image=number < last or finish_image,
                )
                kept = partial(unpad_ragged, mask_tokens, counts)
                self._keep(encoded, f"m_embs-{last - number}", kept)
            self._keep(encoded, f"block{number}", partial(tower.as_map, tokens, grid))
            self._keep(encoded, f"i_embs{number}", tokens[:, 0])
        self._keep(encoded, "i_embs", lambda: self._embed(tokens[:, 0])[:, :, None, None])
        if with_masks:
            encoded.mask_embeddings = self._embed(unpad_ragged(mask_tokens, counts))
        return encoded

    def _run_block_with_masks(
        self,
        block: Any,
        tokens: Tensor,
        mask_tokens: Tensor,
        context: Any,
        *,
        masks: Tensor,
        masks_per_image: Sequence[int],
        log_scale: Tensor,
        update_image: bool,
    ) -> tuple[Tensor, Tensor]:
        """Run one block on the image tokens and the mask tokens.

        Args:
            block: of the tower.
            tokens: image tokens [B, n + h*w, C].
            mask_tokens: [B, Q, C].
            context: see :meth:`Tower.embed`.
            masks: [N, h, w] on the feature grid.
            masks_per_image: the B numbers of masks; their sum is N, Q the largest.
            log_scale: [heads], see :func:`mask_attention_bias`.
            update_image: False returns the image tokens unchanged.
        """
        tower, prefix = self.tower, self.tower.prefix
        parts = "qkv" if update_image else "kv"
        *query, key, value = tower.project(block, tokens, parts, context)
        (mask_query,) = tower.project(block, mask_tokens, "q", None)
        bias = mask_attention_bias(masks, log_scale, self.settings.threshold)
        if self.sees_prefix:
            seen, bias = (key, value), with_prefix(bias, prefix)
        else:
            seen = key[:, :, prefix:], value[:, :, prefix:]
        attended = attend_to_masks(mask_query, *seen, bias, masks_per_image)
        mask_tokens = tower.finish_block(block, mask_tokens, attended)
        if update_image:
            attended = F.scaled_dot_product_attention(query[0], key, value)
            tokens = tower.finish_block(block, tokens, attended)
        return tokens, mask_tokens

    def _embed_cells(self, block: Any, tokens: Tensor, grid: Size) -> Tensor:
        """Patch embeddings [B, D, h, w] from the tokens that enter the last block."""
        cells = tokens[:, self.tower.prefix :]
        (value,) = self.tower.project(block, cells, "v", None)
        return as_map(self._embed(self.tower.finish_block(block, cells, value)), grid)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Final norm and projection: [..., C] -> [..., D]."""
        return self.tower.head(self.tower.norm(tokens))
