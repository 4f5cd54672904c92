"""The straightforward formulation of the mask decoder, to compare with.

Every layer predicts full-size masks and classes from all words, resizes the masks to its feature
map, and copies its attention mask for every head. It computes with the parameters of a decoder of
the package.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskclippp.generators.mask2former.class_heads import (
    ClosedVocabularyDecoder,
    OpenVocabularyDecoder,
)
from maskclippp.generators.mask2former.decoder_layers import CrossAttentionLayer
from maskclippp.generators.mask2former.sine_position import sine_position_encoding
from maskclippp.generators.mask2former.transformer_decoder import MaskedAttentionDecoder

# (states [B, Q, C], mask logits [B, Q, h, w], mask features) -> classes
Classify = Callable[[Tensor, Tensor, Tensor], Tensor]


def decode(
    decoder: MaskedAttentionDecoder,
    multi_scale_features: Sequence[Tensor],
    mask_features: Tensor,
    classify: Classify,
) -> list[tuple[Tensor, Tensor]]:
    """Mask logits and classes before every layer and, last, after all of them."""
    memory, places = [], []
    for index, feature_map in enumerate(multi_scale_features):
        projected = decoder.input_proj[index](feature_map)
        memory.append(_tokens(projected + decoder.level_embed.weight[index][:, None, None]))
        place = sine_position_encoding(
            projected.shape[-2:], projected.shape[1], device=projected.device
        )
        places.append(_tokens(place[None].to(projected.dtype)))
    queries = torch.stack([decoder.query_feat.weight] * len(mask_features))
    position = decoder.query_embed.weight
    predictions = [predict(decoder, queries, mask_features, classify)]
    layers = zip(
        decoder.transformer_cross_attention_layers,
        decoder.transformer_self_attention_layers,
        decoder.transformer_ffn_layers,
        strict=True,
    )
    for number, (cross, own, feed_forward) in enumerate(layers):
        level = number % len(memory)
        size = multi_scale_features[level].shape[-2:]
        blocked = blocked_cells(predictions[-1][0], size)
        queries = read_cells(cross, queries, position, memory[level], places[level], blocked)
        read = own.norm(queries) if own.pre_norm else queries
        asked = read + position
        queries = queries + own.self_attn(asked, asked, read, need_weights=False)[0]
        queries = queries if own.pre_norm else own.norm(queries)
        read = feed_forward.norm(queries) if feed_forward.pre_norm else queries
        queries = queries + feed_forward.linear2(feed_forward.linear1(read).relu())
        queries = queries if feed_forward.pre_norm else feed_forward.norm(queries)
        predictions.append(predict(decoder, queries, mask_features, classify))
    return predictions


def predict(
    decoder: MaskedAttentionDecoder, queries: Tensor, mask_features: Tensor, classify: Classify
) -> tuple[Tensor, Tensor]:
    """Full-size mask logits and classes of queries."""
    states = decoder.decoder_norm(queries)
    masks = torch.einsum("bqc,bchw->bqhw", decoder.mask_embed(states), mask_features)
    return masks, classify(states, masks, mask_features)


def blocked_cells(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Cells outside masks: resize the full-size logits, bool [B, Q, h*w]."""
    resized = F.interpolate(masks, size=tuple(size), mode="bilinear", align_corners=False)
    return resized.sigmoid().flatten(2) < 0.5


def read_cells(
    layer: CrossAttentionLayer,
    queries: Tensor,
    position: Tensor,
    memory: Tensor,
    places: Tensor,
    blocked: Tensor,
) -> Tensor:
    """Masked cross-attention with an attention mask for every head."""
    attention: nn.MultiheadAttention = layer.multihead_attn
    everywhere = blocked.all(dim=-1, keepdim=True)
    mask = (blocked & ~everywhere).repeat_interleave(attention.num_heads, dim=0)
    read = layer.norm(queries) if layer.pre_norm else queries
    update, _ = attention(
        read + position, memory + places, memory, attn_mask=mask, need_weights=False
    )
    return queries + update if layer.pre_norm else layer.norm(queries + update)


def closed_logits(decoder: ClosedVocabularyDecoder) -> Classify:
    """A classifier by a linear layer, void last."""

    def classify(states: Tensor, masks: Tensor, mask_features: Tensor) -> Tensor:
        logits: Tensor = decoder.class_embed(states)
        return logits

    return classify


def open_logits(
    decoder: OpenVocabularyDecoder,
    synonym_embeddings: Tensor,
    void_embedding: Tensor,
    num_synonyms: Sequence[int],
) -> Classify:
    """A classifier by words: maximum over the synonyms of one class after the other, void last."""

    def classify(states: Tensor, masks: Tensor, mask_features: Tensor) -> Tensor:
        inside = (masks > 0).to(mask_features.dtype)
        sums = torch.einsum("bqhw,bchw->bqc", inside, mask_features)
        pooled = sums / (inside.sum(dim=(2, 3)) + 1e-8)[..., None]
        embeddings = decoder.class_embed(decoder._mask_pooling_proj(pooled) + states)
        embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
        void = void_embedding / void_embedding.norm()
        scale = decoder.logit_scale.exp().clamp(max=100)
        similarities = scale * embeddings @ torch.cat([synonym_embeddings, void]).T
        columns, start = [], 0
        for count in num_synonyms:
            columns.append(similarities[..., start : start + count].max(dim=-1).values)
            start += count
        return torch.stack([*columns, similarities[..., -1]], dim=-1)

    return classify


def _tokens(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h*w, C]."""
    return maps.flatten(2).transpose(1, 2)
