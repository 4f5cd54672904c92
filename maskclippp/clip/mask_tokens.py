"""Vision transformers as mask classifiers: one mask token per mask runs beside the image's tokens.

From block MASK_PRIOR_BEG on, a mask token, which starts as a copy of its image's class token, looks
at the patches of its mask. Nothing looks at it, so the image's tokens are what they are without
masks (method: arXiv 2412.11464, section 3).
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from maskclippp.clip.mask_attention import as_map, attend_to_masks, mask_attention_bias
from maskclippp.clip.visual_encoder import (
    EncodedImages,
    EncoderOptions,
    VisualEncoder,
    input_arguments,
)
from maskclippp.errors import InputError
from maskclippp.masks.batching import PaddedBatch, unpad_ragged

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class MaskTokenSettings:
    """How mask tokens attend; the keys of a VISUAL_ENCODER config node.

    Attributes:
        first_block: MASK_PRIOR_BEG, the first block with mask tokens, counted from 1.
        threshold: DOWN_MASK_THRESH, what a mask must exceed in a cell for the cell to be inside;
            None: half of the mask's maximum.
        log_scale: MASK_LOGIT_SCALE, initial log of the weight of mask values.
        learnable: LEARNABLE_MASK_LOGIT_SCALE, train that weight per block and head.
        downsample_method: DOWNSAMPLE_METHOD, how masks are brought to the feature grid.
    """

    first_block: int
    threshold: float | None = None
    log_scale: float = -5.0
    learnable: bool = True
    downsample_method: str = "bilinear"

    @classmethod
    def from_config(cls, node: CfgNode) -> "MaskTokenSettings":
        """From a VISUAL_ENCODER config node."""
        return cls(
            first_block=node.MASK_PRIOR_BEG,
            threshold=node.DOWN_MASK_THRESH,
            log_scale=node.MASK_LOGIT_SCALE,
            learnable=node.LEARNABLE_MASK_LOGIT_SCALE,
            downsample_method=node.DOWNSAMPLE_METHOD,
        )


class MaskTokenEncoder(VisualEncoder):
    """Base of vision transformers with a class token in front of the patches.

    A subclass says how images become tokens and what a block consists of; when and to what mask
    tokens attend is decided here.

    Outputs by OUT_FEATURES: ``m_embs`` (mask embeddings), ``p_embs`` (patch embeddings: the last
    block with its attention replaced by the values alone), ``i_embs`` (image embedding); before
    projection ``blockN`` (patches after block N, [B, C, h, w]), ``i_embsN`` (class token after
    block N, [B, C]) and ``m_embs-k`` (mask tokens k blocks before the end, [N, C]).

    Args:
        proxy: the image tower.
        depth: its number of blocks.
        num_heads: heads per block.
        patch_size: pixels per side of a patch.
        mask_tokens: see :class:`MaskTokenSettings`.
        options: see :class:`VisualEncoder`.
    """

    def __init__(
        self,
        *,
        proxy: nn.Module,
        depth: int,
        num_heads: int,
        patch_size: int,
        mask_tokens: MaskTokenSettings,
        **options: "Unpack[EncoderOptions]",
    ) -> None:
        first = mask_tokens.first_block
        if not 1 <= first <= depth:
            raise InputError(
                f"{type(self).__name__}: MASK_PRIOR_BEG is the first block with mask tokens; "
                f"expected 1..{depth} for this model of {depth} blocks, found {first}"
            )
        super().__init__(
            **options,
            valid_features=(
                *("m_embs", "p_embs", "i_embs"),
                *(f"m_embs-{back}" for back in range(1, depth - first + 1)),
                *(f"block{number}" for number in range(1, depth + 1)),
                *(f"i_embs{number}" for number in range(1, depth + 1)),
            ),
        )
        self.proxy = proxy
        self.depth = depth
        self.num_heads = num_heads
        self.patch_size = patch_size
        self.settings = mask_tokens
        # [blocks with mask tokens, heads]; the last block comes first, as in published checkpoints
        scales = torch.full((depth - first + 1, num_heads), float(mask_tokens.log_scale))
        self.mask_logit_scale = nn.Parameter(
            scales, requires_grad=mask_tokens.learnable and not self.frozen
        )

    @abstractmethod
    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks in order."""

    @abstractmethod
    def _embed_patches(self, images: Tensor) -> tuple[Tensor, Any]:
        """Images [B, 3, H, W] -> tokens [B, 1 + h*w, C], and what blocks need besides."""

    @abstractmethod
    def _run_image_block(self, block: Any, tokens: Tensor, context: Any) -> Tensor:
        """A block as it was pretrained: [B, L, C] -> [B, L, C]."""

    @abstractmethod
    def _project(self, block: Any, tokens: Tensor, parts: str, context: Any) -> tuple[Tensor, ...]:
        """Queries, keys or values of tokens [B, L, C], each [B, heads, L, d].

        ``parts`` is a run of letters of "qkv". ``context`` is that of :meth:`_embed_patches` for
        the image's tokens, None for tokens without a position.
        """

    @abstractmethod
    def _finish_block(self, block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: tokens [B, L, C], attended [B, heads, L, d] -> [B, L, C]."""

    @abstractmethod
    def _embed(self, tokens: Tensor) -> Tensor:
        """Final norm and projection: [..., C] -> [..., D]."""

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the tower, mask tokens beside it. See :class:`VisualEncoder`."""
        grid = self._grid(batch)
        counts = batch.masks_per_image
        first, last = self.settings.first_block, self.depth
        # After the last block only mask tokens go on, unless somebody asks for the image's.
        finish_image = bool({"i_embs", f"i_embs{last}", f"block{last}"} & set(self.out_features))
        encoded = EncodedImages(batch)
        masks = mask_tokens = torch.empty(0)
        if with_masks:
            masks = batch.downsampled_masks(grid, self.settings.downsample_method)
            encoded.mask_areas = masks.sum(dim=(1, 2))
        tokens, context = self._embed_patches(batch.images)
        for number, block in enumerate(self.blocks(), start=1):
            if number == last:
                self._keep(encoded, "p_embs", self._embed_cells, block, tokens, grid)
            if not with_masks or number < first:
                tokens = self._run_block(self._run_image_block, block, tokens, context)
            else:
                if number == first:
                    mask_tokens = tokens[:, :1].expand(-1, max(counts), -1)
                arguments = (block, tokens, mask_tokens, masks, counts, last - number, context)
                tokens, mask_tokens = self._run_block(
                    self._run_block_with_masks, *arguments, number < last or finish_image
                )
                self._keep(encoded, f"m_embs-{last - number}", unpad_ragged, mask_tokens, counts)
            self._keep(encoded, f"block{number}", as_map, tokens[:, 1:], grid)
            self._keep(encoded, f"i_embs{number}", torch.select, tokens, 1, 0)
        self._keep(encoded, "i_embs", lambda: self._embed(tokens[:, 0])[:, :, None, None])
        if with_masks:
            encoded.mask_embeddings = self._embed(unpad_ragged(mask_tokens, counts))
        return encoded

    def _run_block_with_masks(
        self,
        block: Any,
        tokens: Tensor,
        mask_tokens: Tensor,
        masks: Tensor,
        masks_per_image: Sequence[int],
        row: int,
        context: Any,
        update_image: bool,
    ) -> tuple[Tensor, Tensor]:
        """One block for both kinds of tokens; the image's stay as they are if not to be updated.

        Args:
            block: of the tower.
            tokens: [B, 1 + h*w, C] of the image.
            mask_tokens: [B, Q, C].
            masks: [N, h, w] on the feature grid.
            masks_per_image: B numbers, N in all, Q at most.
            row: of mask_logit_scale.
            context: see :meth:`_embed_patches`.
            update_image: compute the image's tokens.
        """
        parts = "qkv" if update_image else "kv"
        *query, key, value = self._project(block, tokens, parts, context)
        (mask_query,) = self._project(block, mask_tokens, "q", None)
        bias = mask_attention_bias(masks, self.mask_logit_scale[row], self.settings.threshold)
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


def mask_token_arguments(node: CfgNode) -> dict[str, Any]:
    """Keyword arguments that all mask-token encoders take from a VISUAL_ENCODER config node."""
    return {**input_arguments(node), "mask_tokens": MaskTokenSettings.from_config(node)}


def project_fused(
    tokens: Tensor, weight: Tensor, bias: Tensor | None, parts: str
) -> tuple[Tensor, ...]:
    """Some of the query, key and value of a fused projection.

    Args:
        tokens: [B, L, C].
        weight: [3 * C', C], rows of query, key and value.
        bias: [3 * C'], or None.
        parts: a run of letters of "qkv".

    Returns:
        [B, L, C'] per letter.
    """
    width = len(weight) // 3
    start = "qkv".index(parts) * width
    rows = slice(start, start + len(parts) * width)
    return F.linear(tokens, weight[rows], None if bias is None else bias[rows]).chunk(
        len(parts), dim=-1
    )
