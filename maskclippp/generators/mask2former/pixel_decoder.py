"""Pixel decoder of Mask2Former (arXiv 2112.01527), FC-CLIP and MAFT+.

The coarser feature maps of a backbone exchange information by deformable attention; a top-down
path then adds the finer ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskclippp.errors import InputError
from maskclippp.generators.mask2former.deformable_encoder import DeformableTransformer

_NORM_GROUPS = 32
_NUM_OUTPUT_LEVELS = 3
_NORMS = ("GN", "")


@dataclass(frozen=True)
class PixelDecoderOutput:
    """The inputs of the transformer decoder.

    Attributes:
        mask_features: [B, mask_dim, h, w] at the common stride.
        multi_scale_features: the three coarsest maps, [B, conv_dim, h, w] each, coarse to fine.
    """

    mask_features: Tensor
    multi_scale_features: list[Tensor]


class MSDeformAttnPixelDecoder(nn.Module):
    """Multi-scale deformable attention encoder and feature pyramid.

    Under bfloat16 autocast convolutions and linear layers follow; sampling positions, softmax,
    norms and residual sums stay in float32. Under float16, whose range is too small for the sums,
    everything is computed in the dtype of the weights. Parameter names are those of published
    checkpoints.

    Args:
        channels: channels of each input feature by name.
        strides: stride of each input feature, in pixels of the image; the same names.
        transformer_in_features: which features enter the deformable encoder, in any order. The
            features between the finest of them and ``common_stride`` enter the pyramid.
        conv_dim: width of encoder and pyramid, a multiple of 32.
        mask_dim: channels of the mask features.
        norm: of the pyramid's convolutions: GN (32 groups) or "" for none.
        num_layers: layers of the encoder; may be 0.
        num_heads: attention heads; must divide ``conv_dim``.
        num_points: sampling points per head and level.
        feedforward_dim: hidden width of the encoder's feed-forward part.
        dropout: probability in the encoder's layers.
        common_stride: stride of the mask features.
    """

    def __init__(
        self,
        *,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        transformer_in_features: Sequence[str],
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str = "GN",
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.0,
        common_stride: int = 4,
    ) -> None:
        super().__init__()
        if conv_dim % _NORM_GROUPS:
            raise InputError(
                f"pixel decoder: conv_dim must be a multiple of {_NORM_GROUPS} (groups of the "
                f"norms), found {conv_dim}"
            )
        coarse_to_fine, pyramid = _split_features(
            channels, strides, transformer_in_features, common_stride
        )
        available = len(coarse_to_fine) + len(pyramid)
        if available < _NUM_OUTPUT_LEVELS:
            raise InputError(
                f"pixel decoder: {_NUM_OUTPUT_LEVELS} feature maps expected, but the features "
                f"{[*coarse_to_fine, *reversed(pyramid)]} make {available}; name more features"
            )
        self.channels = {name: channels[name] for name in [*coarse_to_fine, *pyramid]}
        self.transformer_in_features = coarse_to_fine
        self.pyramid_features = pyramid
        self.input_proj = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[name], conv_dim, kernel_size=1),
                nn.GroupNorm(_NORM_GROUPS, conv_dim),
            )
            for name in coarse_to_fine
        )
        self.transformer = DeformableTransformer(
            channels=conv_dim,
            num_levels=len(coarse_to_fine),
            num_layers=num_layers,
            num_heads=num_heads,
            num_points=num_points,
            feedforward_dim=feedforward_dim,
            dropout=dropout,
        )
        for number, name in enumerate(pyramid, start=1):
            adapter = NormedConvolution(channels[name], conv_dim, kernel_size=1, norm=norm)
            self.add_module(f"adapter_{number}", adapter)
            layer = NormedConvolution(conv_dim, conv_dim, kernel_size=3, norm=norm)
            self.add_module(f"layer_{number}", layer)
        self.mask_features = nn.Conv2d(conv_dim, mask_dim, kernel_size=1)

    def forward(self, features: Mapping[str, Tensor]) -> PixelDecoderOutput:
        """Decode backbone features by name, each [B, C, h, w]; further names are ignored."""
        self._check(features)
        kind = self.mask_features.weight.device.type
        is_bfloat16 = torch.get_autocast_dtype(kind) == torch.bfloat16
        follow = torch.is_autocast_enabled(kind) and is_bfloat16
        # Convolutions in bfloat16 are two to three times slower on contiguous maps.
        layout = torch.channels_last if follow else torch.contiguous_format
        dtype = torch.bfloat16 if follow else self.mask_features.weight.dtype
        features = {name: features[name].to(dtype, memory_format=layout) for name in self.channels}
        with torch.autocast(kind, enabled=follow):
            maps = self.transformer(
                [
                    project(features[name])
                    for name, project in zip(
                        self.transformer_in_features, self.input_proj, strict=True
                    )
                ]
            )
            for number in range(len(self.pyramid_features), 0, -1):
                finer = features[self.pyramid_features[number - 1]]
                maps.append(self._refine(number, maps[-1], finer, layout))
            return PixelDecoderOutput(
                mask_features=self.mask_features(maps[-1]),
                multi_scale_features=maps[:_NUM_OUTPUT_LEVELS],
            )

    def _refine(
        self, number: int, coarse: Tensor, finer: Tensor, layout: torch.memory_format
    ) -> Tensor:
        """One step of the top-down path: add the next finer feature."""
        lateral = self.get_submodule(f"adapter_{number}")(finer)
        # The encoder's maps are parts of a tensor, in which PyTorch does not recognize a layout.
        coarse = coarse.clone(memory_format=layout)
        enlarged = F.interpolate(coarse, size=lateral.shape[-2:], mode="bilinear")
        return F.relu(self.get_submodule(f"layer_{number}")(lateral + enlarged))

    def _check(self, features: Mapping[str, Tensor]) -> None:
        """Refuse missing features and other channels."""
        for name, channels in self.channels.items():
            shape = tuple(features[name].shape) if name in features else None
            if shape is None or len(shape) != 4 or shape[1] != channels:
                found = f"{sorted(features)}" if shape is None else f"the shape {list(shape)}"
                raise InputError(
                    f"pixel decoder: feature '{name}' of shape [B, {channels}, h, w] expected, "
                    f"found {found}; the encoder must return the maps that the decoder expects"
                )


def _split_features(
    channels: Mapping[str, int],
    strides: Mapping[str, int],
    transformer_in_features: Sequence[str],
    common_stride: int,
) -> tuple[list[str], list[str]]:
    """Names that enter the encoder, coarse to fine, and the pyramid, fine to coarse."""
    unknown = [n for n in transformer_in_features if n not in channels or n not in strides]
    if unknown or set(channels) != set(strides) or not transformer_in_features:
        raise InputError(
            f"pixel decoder: the encoder's input features {list(transformer_in_features)} must be "
            f"among those with channels {dict(channels)} and strides {dict(strides)}"
        )
    coarse_to_fine = sorted(transformer_in_features, key=lambda name: -strides[name])
    finest = strides[coarse_to_fine[-1]]
    pyramid = sorted(
        (name for name in strides if common_stride <= strides[name] < finest),
        key=lambda name: strides[name],
    )
    found = [strides[name] for name in pyramid]
    if [*found, finest] != [common_stride * 2**step for step in range(len(found) + 1)]:
        raise InputError(
            f"pixel decoder: the strides from common_stride {common_stride} to the encoder's "
            f"finest feature '{coarse_to_fine[-1]}' ({finest}) must double, found "
            f"{[*found, finest]} in {dict(strides)}"
        )
    return coarse_to_fine, pyramid


class NormedConvolution(nn.Conv2d):
    """A convolution that keeps the size, and a norm; with a bias only when there is no norm."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, norm: str) -> None:
        if norm not in _NORMS:
            raise InputError(f"pixel decoder: norm must be one of {_NORMS}, found {norm!r}")
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not norm
        )
        self.norm = nn.GroupNorm(_NORM_GROUPS, out_channels) if norm else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """[B, in_channels, h, w] -> [B, out_channels, h, w]."""
        return self.norm(super().forward(input))
