"""The straightforward formulation of the pixel decoder, to compare with.

Every layer of the encoder samples all levels with ``grid_sample``, holds the samples of all points
and adds them up by their weights. It computes with the parameters of a decoder of the package.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskclippp.generators.mask2former.deformable_attention import MultiScaleDeformableAttention
from maskclippp.generators.mask2former.deformable_encoder import DeformableTransformer
from maskclippp.generators.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from maskclippp.generators.mask2former.sine_position import sine_position_encoding

Sizes = Sequence[tuple[int, int]]


def decode(
    decoder: MSDeformAttnPixelDecoder, features: Mapping[str, Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Mask features and the maps for the transformer decoder, coarse to fine."""
    projections = zip(decoder.transformer_in_features, decoder.input_proj, strict=True)
    maps = encode(decoder.transformer, [project(features[name]) for name, project in projections])
    for number in range(len(decoder.pyramid_features), 0, -1):
        finer = features[decoder.pyramid_features[number - 1]]
        lateral = decoder.get_submodule(f"adapter_{number}")(finer)
        enlarged = F.interpolate(
            maps[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False
        )
        maps.append(decoder.get_submodule(f"layer_{number}")(lateral + enlarged).relu())
    return decoder.mask_features(maps[-1]), maps[:3]


def encode(transformer: DeformableTransformer, maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps [B, C, h, w] -> the same sizes, after all layers."""
    sizes: Sizes = [(one.shape[-2], one.shape[-1]) for one in maps]
    tokens = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)
    places, centers = [], []
    for size, embedding in zip(sizes, transformer.level_embed, strict=True):
        place = sine_position_encoding(size, tokens.shape[-1], device=tokens.device)
        places.append(place.flatten(1).T + embedding)
        cells = torch.cartesian_prod(*(torch.arange(n, device=tokens.device) for n in size))
        row, column = (cells + 0.5).unbind(-1)
        centers.append(torch.stack([column / size[1], row / size[0]], dim=-1))
    position, reference = torch.cat(places), torch.cat(centers)
    for layer in transformer.encoder.layers:
        attended = attend(layer.self_attn, tokens + position, reference, tokens, sizes)
        tokens = layer.norm1(tokens + attended)
        hidden = layer.linear2(layer.linear1(tokens).relu())
        tokens = layer.norm2(tokens + hidden)
    levels = tokens.split([height * width for height, width in sizes], dim=1)
    return [
        level.transpose(1, 2).unflatten(-1, size) for level, size in zip(levels, sizes, strict=True)
    ]


def attend(
    attention: MultiScaleDeformableAttention,
    query: Tensor,
    reference: Tensor,
    source: Tensor,
    sizes: Sizes,
) -> Tensor:
    """Deformable attention around the points ``reference`` [Q, 2] -> [B, Q, C]."""
    heads, levels, points = attention.num_heads, attention.num_levels, attention.num_points
    value = attention.value_proj(source).unflatten(-1, (heads, -1))
    weights = attention.attention_weights(query).unflatten(-1, (heads, -1)).softmax(dim=-1)
    offsets = attention.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
    extent = torch.tensor([(width, height) for height, width in sizes], device=query.device)
    locations = reference[:, None, None, None] + offsets / extent[:, None]
    samples = sample_grids(value, sizes, locations)
    weighted = samples * weights.transpose(1, 2).flatten(0, 1)[:, None]
    output = weighted.sum(dim=-1).unflatten(0, (len(query), heads))  # [B, heads, D, Q]
    attended: Tensor = attention.output_proj(output.flatten(1, 2).transpose(1, 2))
    return attended


def sample_grids(value: Tensor, sizes: Sizes, locations: Tensor) -> Tensor:
    """Bilinear samples of all levels.

    Args:
        value: cells of all maps [B, S, heads, D].
        sizes: height and width of the maps.
        locations: [B, Q, heads, levels, points, 2], x and y in units of the map.

    Returns:
        [B * heads, D, Q, levels * points].
    """
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [B * heads, Q, levels, points, 2]
    samples = []
    cells = value.split([height * width for height, width in sizes], dim=1)
    for level, (size, rows) in enumerate(zip(sizes, cells, strict=True)):
        maps = rows.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, size)
        samples.append(F.grid_sample(maps, grids[:, :, level], align_corners=False))
    return torch.cat(samples, dim=-1)
