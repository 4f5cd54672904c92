"""The masked-attention transformer decoder of Mask2Former (arXiv 2112.01527, section 3.2).

In every layer, a query attends to the part of a feature map inside the mask that it predicts so
far. A layer needs this mask only at the resolution of its feature map. Because bilinear resizing is
linear, resize(E F) = E resize(F), the mask features F are resized once per scale, and full-size
masks and classes are predicted once, after the last layer. The results are the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskclippp.errors import InputError
from maskclippp.generators.mask2former.decoder_layers import (
    MLP,
    CrossAttentionLayer,
    FeedForwardLayer,
    SelfAttentionLayer,
)
from maskclippp.generators.mask2former.sine_position import sine_position_encoding


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Options that all decoders have in common.

    Attributes:
        input_dim: channels of the pixel decoder's feature maps.
        hidden_dim: C, width of the queries.
        mask_dim: channels of the mask features.
        num_queries: Q.
        num_layers: transformer layers: MASK_FORMER.DEC_LAYERS - 1, because that key also counts
            the prediction from the initial queries.
        num_heads: heads of every attention.
        feedforward_dim: hidden width of the feed-forward layers.
        num_levels: feature maps, used by the layers in turn.
        pre_norm: normalize before each update instead of after it.
        enforce_input_projection: project the maps even if ``input_dim`` equals ``hidden_dim``.
    """

    input_dim: int
    hidden_dim: int
    mask_dim: int
    num_queries: int
    num_layers: int
    num_heads: int
    feedforward_dim: int
    num_levels: int = 3
    pre_norm: bool = False
    enforce_input_projection: bool = False


@dataclass(frozen=True)
class MaskPredictions:
    """Q masks in each of B images.

    Attributes:
        masks: logits [B, Q, h, w] at the resolution of the mask features.
        classes: closed vocabulary: logits [B, Q, K + 1], void last; open vocabulary: class
            embeddings [B, Q, D] of length 1.
        intermediate: on request, the predictions before every layer, starting with the initial
            queries, for deep supervision; else empty.
    """

    masks: Tensor
    classes: Tensor
    intermediate: tuple["MaskPredictions", ...] = ()


@dataclass(frozen=True)
class _Level:
    """A feature map prepared for the layers: ``keys`` and ``values`` [B, h*w, C], and the mask
    features of its cells [B, mask_dim, h*w].
    """

    keys: Tensor
    values: Tensor
    mask_features: Tensor


class MaskedAttentionDecoder(nn.Module, ABC):
    """Turns queries into masks and classes. Subclasses add the classifier.

    Submodules are named as in the published checkpoints (``sem_seg_head.predictor.*``).
    """

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.options = options
        width, layers = options.hidden_dim, range(options.num_layers)
        heads, pre_norm = options.num_heads, options.pre_norm
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim=width, num_heads=heads, pre_norm=pre_norm) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim=width, num_heads=heads, pre_norm=pre_norm)
            for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FeedForwardLayer(
                hidden_dim=width, feedforward_dim=options.feedforward_dim, pre_norm=pre_norm
            )
            for _ in layers
        )
        self._initialize_layers()
        self.decoder_norm = nn.LayerNorm(width)
        self.query_feat = nn.Embedding(options.num_queries, width)
        self.query_embed = nn.Embedding(options.num_queries, width)
        self.level_embed = nn.Embedding(options.num_levels, width)
        projects = options.input_dim != width or options.enforce_input_projection
        self.input_proj = nn.ModuleList(
            nn.Conv2d(options.input_dim, width, kernel_size=1) if projects else nn.Identity()
            for _ in range(options.num_levels)
        )
        self.mask_embed = MLP(input_dim=width, hidden_dim=width, output_dim=options.mask_dim)

    def forward(
        self,
        multi_scale_features: Sequence[Tensor],
        mask_features: Tensor,
        *,
        with_intermediate: bool = False,
    ) -> MaskPredictions:
        """Predict masks.

        Args:
            multi_scale_features: ``num_levels`` maps [B, input_dim, h_i, w_i], coarsest first.
            mask_features: [B, mask_dim, h, w].
            with_intermediate: also predict before every layer, at full size and with gradients.
        """
        self._check_features(multi_scale_features, mask_features)
        levels = [
            self._level(index, feature_map, mask_features)
            for index, feature_map in enumerate(multi_scale_features)
        ]
        position = self.query_embed.weight
        queries = self.query_feat.weight.expand(len(mask_features), -1, -1)
        intermediate = []
        for index, (cross_attention, self_attention, feed_forward) in enumerate(
            zip(
                self.transformer_cross_attention_layers,
                self.transformer_self_attention_layers,
                self.transformer_ffn_layers,
                strict=True,
            )
        ):
            if with_intermediate:
                intermediate.append(self._predict(queries, mask_features))
            level = levels[index % len(levels)]
            inside = self._cells_inside(queries, level.mask_features)
            queries = cross_attention(queries, position, level.keys, level.values, inside)
            queries = self_attention(queries, position)
            queries = feed_forward(queries)
        last = self._predict(queries, mask_features)
        return MaskPredictions(last.masks, last.classes, tuple(intermediate))

    @abstractmethod
    def classify(self, states: Tensor, masks: Tensor, mask_features: Tensor) -> Tensor:
        """:attr:`MaskPredictions.classes`.

        Args:
            states: normalized queries [B, Q, C].
            masks: their mask logits [B, Q, h, w].
            mask_features: [B, mask_dim, h, w].
        """

    def _predict(self, queries: Tensor, mask_features: Tensor) -> MaskPredictions:
        """Full-size masks and classes of queries [B, Q, C]."""
        states = self.decoder_norm(queries)
        masks = (self.mask_embed(states) @ mask_features.flatten(2)).unflatten(
            -1, mask_features.shape[-2:]
        )
        return MaskPredictions(masks, self.classify(states, masks, mask_features))

    @torch.no_grad()
    def _cells_inside(self, queries: Tensor, mask_features: Tensor) -> Tensor:
        """Cells of a level inside the queries' masks (probability >= 0.5): bool [B, Q, h*w]."""
        logits: Tensor = self.mask_embed(self.decoder_norm(queries)) @ mask_features
        return logits >= 0

    def _level(self, index: int, feature_map: Tensor, mask_features: Tensor) -> _Level:
        """Prepare a feature map for all layers that use it."""
        size = (feature_map.shape[-2], feature_map.shape[-1])
        projected = self.input_proj[index](feature_map).flatten(2).transpose(1, 2)
        values = projected + self.level_embed.weight[index]
        position = sine_position_encoding(size, self.options.hidden_dim, device=values.device)
        keys = values + position.flatten(1).T.to(values.dtype)
        # Only used for attention masks, which have no gradient.
        resized = F.interpolate(
            mask_features.detach(), size=size, mode="bilinear", align_corners=False
        )
        return _Level(keys, values, resized.flatten(2))

    def _initialize_layers(self) -> None:
        """Xavier initialization of the matrices of all layers, as in DETR."""
        for layers in (
            self.transformer_self_attention_layers,
            self.transformer_cross_attention_layers,
            self.transformer_ffn_layers,
        ):
            for parameter in layers.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def _check_features(
        self, multi_scale_features: Sequence[Tensor], mask_features: Tensor
    ) -> None:
        """Refuse feature maps with other channels."""
        found = [feature_map.shape[1] for feature_map in multi_scale_features]
        expected = [self.options.input_dim] * self.options.num_levels
        if found != expected or mask_features.shape[1] != self.options.mask_dim:
            raise InputError(
                f"the mask decoder expects feature maps of {expected} channels and mask features "
                f"of {self.options.mask_dim} channels, found {found} and {mask_features.shape[1]}; "
                "build it with the sizes of the pixel decoder"
            )
