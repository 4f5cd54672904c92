"""Vision transformers as mask classifiers: one mask token per mask.

Before block MASK_PRIOR_BEG a mask token is created as a copy of the class token of its image. From
then on it attends to the patches of its mask. Nothing attends to it, so the image tokens are the
same with and without masks (arXiv 2412.11464, section 3).
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from typing_extensions import Unpack

from maskclippp.clip.mask_attention import (
    MaskAttentionSettings,
    as_map,
    attend_to_masks,
    mask_attention_bias,
)
from maskclippp.clip.visual_encoder import EncodedImages, EncoderOptions, VisualEncoder
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch, unpad_ragged


class MaskTokenEncoder(VisualEncoder):
    """Base of vision transformers whose first token is a class token.

    Subclasses define how images become tokens and what a block computes; this class runs the mask
    tokens.

    OUT_FEATURES: ``m_embs`` (mask embeddings), ``p_embs`` (patch embeddings: the last block with
    its attention replaced by the values alone), ``i_embs`` (image embedding). Without the final
    projection: ``blockN`` (patches after block N, [B, C, h, w]), ``i_embsN`` (class token after
    block N, [B, C]), ``m_embs-k`` (mask tokens k blocks before the end, [N, C]).

    Args:
        first_block: the first block with mask tokens (MASK_PRIOR_BEG), counted from 1.
        mask_attention: how they attend.
        options: see :class:`VisualEncoder`.
    """

    @configurable
    def __init__(
        self,
        *,
        first_block: int,
        mask_attention: MaskAttentionSettings,
        **options: Unpack[EncoderOptions],
    ) -> None:
        blocks: Any = self._blocks_of(options["proxy"])
        depth = len(blocks)
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
        )
        self.depth = depth
        self.num_heads = blocks[0].attn.num_heads
        self.first_block = first_block
        self.settings = mask_attention
        # [blocks with mask tokens, heads]; the last block comes first, as in published checkpoints
        self.mask_logit_scale = mask_attention.make_log_scale(
            depth - first_block + 1, self.num_heads, frozen=self.frozen
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """See :class:`VisualEncoder`."""
        return {
            **super().from_config(cfg),
            "first_block": cfg.MASK_PRIOR_BEG,
            "mask_attention": MaskAttentionSettings.from_config(cfg),
        }

    @classmethod
    @abstractmethod
    def _blocks_of(cls, tower: nn.Module) -> nn.ModuleList | nn.Sequential:
        """The transformer blocks of a tower; an InputError if it is of another kind."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Pixels per side of a patch."""

    @abstractmethod
    def _embed_patches(self, images: Tensor) -> tuple[Tensor, Any]:
        """Images [B, 3, H, W] -> tokens [B, 1 + h*w, C], and a context that blocks need."""

    @abstractmethod
    def _run_image_block(self, block: Any, tokens: Tensor, context: Any) -> Tensor:
        """A whole pretrained block: [B, L, C] -> [B, L, C]."""

    @abstractmethod
    def _project(self, block: Any, tokens: Tensor, parts: str, context: Any) -> tuple[Tensor, ...]:
        """Queries, keys or values of tokens [B, L, C], each [B, heads, L, d].

        ``parts`` is a substring of "qkv". ``context`` is that of :meth:`_embed_patches` for image
        tokens, None for tokens without a position.
        """

    @abstractmethod
    def _finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        """The block after attention: tokens [B, L, C], attended [B, heads, L, d] -> [B, L, C]."""

    @abstractmethod
    def _embed(self, tokens: Tensor) -> Tensor:
        """Final norm and projection: [..., C] -> [..., D]."""

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        return iter(self._blocks_of(self.proxy))

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the tower, and mask tokens alongside. See :class:`VisualEncoder`."""
        grid = self._grid(batch)
        counts = batch.masks_per_image
        last = self.depth
        # After the last block only mask tokens are needed, unless an output uses the image tokens.
        finish_image = bool({"i_embs", f"i_embs{last}", f"block{last}"} & set(self.out_features))
        encoded = EncodedImages(batch)
        masks = mask_tokens = torch.empty(0)
        if with_masks:
            masks = batch.downsampled_masks(grid, self.settings.downsample_method)
            encoded.mask_areas = masks.sum(dim=(1, 2))
        tokens, context = self._embed_patches(batch.images)
        for number, block in enumerate(self.blocks(), start=1):
            if number == last:
                self._keep(encoded, "p_embs", partial(self._embed_cells, block, tokens, grid))
            if not with_masks or number < self.first_block:
                tokens = self._run_block(self._run_image_block, block, tokens, context)
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
            self._keep(encoded, f"block{number}", as_map(tokens[:, 1:], grid))
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
            tokens: image tokens [B, 1 + h*w, C].
            mask_tokens: [B, Q, C].
            context: see :meth:`_embed_patches`.
            masks: [N, h, w] on the feature grid.
            masks_per_image: the B numbers of masks; their sum is N, Q the largest.
            log_scale: [heads], see :func:`mask_attention_bias`.
            update_image: False returns the image tokens unchanged.
        """
        parts = "qkv" if update_image else "kv"
        *query, key, value = self._project(block, tokens, parts, context)
        (mask_query,) = self._project(block, mask_tokens, "q", None)
        bias = mask_attention_bias(masks, log_scale, self.settings.threshold)
        attended = attend_to_masks(
            mask_query, key[:, :, 1:], value[:, :, 1:], bias, masks_per_image
        )
        mask_tokens = self._finish_block(block, mask_tokens, attended)
        if update_image:
            attended = F.scaled_dot_product_attention(query[0], key, value)
            tokens = self._finish_block(block, tokens, attended)
        return tokens, mask_tokens

    def _embed_cells(self, block: Any, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch embeddings [B, D, h, w] from the tokens that enter the last block."""
        cells = tokens[:, 1:]
        (value,) = self._project(block, cells, "v", None)
        return as_map(self._embed(self._finish_block(block, cells, value)), grid)

    def _grid(self, batch: PaddedBatch) -> tuple[int, int]:
        height, width = batch.images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(
                f"{type(self).__name__}: a padded batch of {height} x {width} pixels does not "
                f"divide into patches of {self.patch_size} x {self.patch_size}; set "
                f"VISUAL_ENCODER.SIZE_DIVISIBILITY to {self.patch_size}"
            )
        return height // self.patch_size, width // self.patch_size


def project_fused(
    tokens: Tensor, weight: Tensor, bias: Tensor | None, parts: str
) -> tuple[Tensor, ...]:
    """Query, key or value by their rows of a fused projection.

    Args:
        tokens: [B, L, C].
        weight: [3 * C', C], rows of query, key and value.
        bias: [3 * C'], or None.
        parts: a substring of "qkv".

    Returns:
        [B, L, C'] per letter.
    """
    width = len(weight) // 3
    start = "qkv".index(parts) * width
    rows = slice(start, start + len(parts) * width)
    return F.linear(tokens, weight[rows], None if bias is None else bias[rows]).chunk(
        len(parts), dim=-1
    )
