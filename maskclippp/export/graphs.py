"""The two networks as functions of tensors alone, for torch.export: images and masks of any size.

In evaluation the maps that resize masks are sparse and computed outside the network
(:class:`~maskclippp.masks.resampling.Taps`). Here they are small dense matrices inside it, so that
their sizes may follow those of the inputs.
"""

from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn
from typing_extensions import override

from maskclippp.clip.similarity import similarity
from maskclippp.clip.visual_encoder import VisualEncoder
from maskclippp.errors import InputError
from maskclippp.generators import FCCLIPSegmentor, MaskGenerator
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from maskclippp.masks.batching import PaddedBatch, pad_batch
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.meta_arch import MaskCLIPpp

Network = TypeVar("Network", bound=nn.Module)


class ClassifierGraph(nn.Module):
    """Masks -> their embeddings, and their logits for words.

    Args:
        model: a complete model; its text tower and its mask generator are left out.
    """

    def __init__(self, model: MaskCLIPpp) -> None:
        super().__init__()
        self.visual_encoder = _with_constant_padding(model.visual_encoder)
        self.psm = model.psm
        self.logit_scale = model.logit_scale
        self.max_scale = model.text_encoder.max_scale

    @override
    def forward(
        self, image: Tensor, masks: Tensor, mask_stride: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Classify masks.

        Args:
            image: float32 [1, 3, H, W], RGB, 0..255.
            masks: float32 [N, h, w], values in 0..1.
            mask_stride: float32 [2]: the pixels of ``image`` per mask cell, in y and in x. The
                first cell begins at the first pixel; cells beyond the image are left out.
            text: float32 [Ka, T, D] of length 1.

        Returns:
            Mask embeddings [N, D] of length 1, and logits [N, Ka].
        """
        padded = _padded(self.visual_encoder, image)
        batch = _TracedBatch(
            padded.images,
            padded.image_sizes,
            [SoftMasks(masks)],
            mask_stride,
            (image.shape[-2], image.shape[-1]),
        )
        encoded = self.visual_encoder.encode(batch, with_masks=True)
        assert encoded.mask_embeddings is not None
        similarities = similarity(encoded.mask_embeddings, text, self.logit_scale, self.max_scale)
        logits: Tensor = self.psm(similarities, encoded, text)
        return F.normalize(encoded.mask_embeddings, dim=-1), logits


class GeneratorGraph(nn.Module):
    """An image -> masks, and their logits.

    Raises:
        InputError: a generator that is no network from image to masks.
    """

    def __init__(self, generator: MaskGenerator) -> None:
        super().__init__()
        if not isinstance(generator, MaskTransformerSegmentor):
            raise InputError(
                f"{type(generator).__name__} cannot be exported: FCCLIPSegmentor (FC-CLIP, MAFT+) "
                "and Mask2FormerSegmentor can; give another generator, or export only the "
                "classifier, which takes masks of any origin"
            )
        if generator.encoder.input_format.test_resize.kind != "none":
            raise InputError(
                "a generator that resizes its images (VISUAL_ENCODER_F.TEST_RESIZE_TYPE) cannot "
                "be exported: set it to none, and give images of that size"
            )
        self.generator = _with_constant_padding(generator)

    @override
    def forward(self, image: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find masks.

        Args:
            image: float32 [1, 3, H, W], RGB, 0..255.
            text: float32 [Ka, D] of length 1; for generators of an open vocabulary.

        Returns:
            Masks [Q, h, w], probabilities, of the padded image; logits [Q, Ka + 1], or of the
            generator's own classes, void last.
        """
        batch = _padded(self.generator.encoder, image)
        encoded = self.generator.encoder.encode(batch, with_masks=False)
        predictions = self.generator.predict(encoded.maps)
        if text is None:
            logits = predictions.classes
        else:
            generator = cast(FCCLIPSegmentor, self.generator)
            logits = generator.synonym_logits(predictions.classes, text)
        return predictions.masks[0].sigmoid(), logits[0]


def _with_constant_padding(network: Network) -> Network:
    """Replace the convolutions of timm that compute their padding from the size of the input.

    Those of stride 1 always compute the same.
    """
    for name, conv in list(network.named_modules()):
        if isinstance(conv, Conv2dSame) and conv.stride == (1, 1):
            pads = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
            before_after = [(pad // 2, pad - pad // 2) for pad in reversed(pads)]
            plain = nn.Conv2d(
                conv.in_channels,
                conv.out_channels,
                (conv.kernel_size[0], conv.kernel_size[1]),
                dilation=(conv.dilation[0], conv.dilation[1]),
                groups=conv.groups,
                bias=conv.bias is not None,
            )
            plain.load_state_dict(conv.state_dict())
            padding = nn.ZeroPad2d((*before_after[0], *before_after[1]))
            network.set_submodule(name, nn.Sequential(padding, plain))
    return network


def _padded(encoder: VisualEncoder, image: Tensor) -> PaddedBatch:
    fmt = encoder.input_format
    return pad_batch([image[0]], None, fmt, fmt.test_resize, image.device)


@dataclass(frozen=True)
class _TracedBatch(PaddedBatch):
    """One image, and masks whose place in it is known when the graph runs.

    Attributes:
        mask_stride: [2], pixels of the given image per mask cell.
        given_size: height and width of that image, before the encoder resizes it.
    """

    mask_stride: Tensor
    given_size: tuple[int, int]

    @property
    @override
    def masks_per_image(self) -> list[int]:
        """See :class:`PaddedBatch`; ``len`` would make the number a constant."""
        return [self.masks[0].values.shape[0]]

    @override
    def downsampled_masks(self, size: tuple[int, int], method: str = "bilinear") -> Tensor:
        """See :class:`PaddedBatch`."""
        if method != "bilinear":
            raise InputError(
                "VISUAL_ENCODER.DOWNSAMPLE_METHOD: only 'bilinear' can be exported, found "
                f"{method!r}"
            )
        rows, columns = (self._map(dim, size[dim]) for dim in (0, 1))
        return rows @ self.masks[0].values @ columns.T

    def _map(self, dim: int, size: int) -> Tensor:
        """[size, h]: mask cells -> pixels -> resized image -> padded image -> feature grid."""
        cells, given = self.masks[0].shape[dim], self.given_size[dim]
        resized, padded = self.image_sizes[0][dim], self.images.shape[2 + dim]
        to_pixels = _bilinear(given, cells, 1 / self.mask_stride[dim])
        to_resized = _bilinear(padded, given, given / resized)
        to_grid = _bilinear(size, padded, padded / size)
        # A map of all padded rows, as a slice of another one would need to know which is larger.
        is_image = torch.arange(padded) < resized
        return (to_grid * is_image) @ (to_resized @ to_pixels)


def _bilinear(target: int, source: int, step: Tensor | float) -> Tensor:
    """[target, source]: weights of bilinear resizing, of which one output is ``step`` sources."""
    center = ((torch.arange(target) + 0.5) * step - 0.5).clamp(min=0, max=source - 1)
    return (1 - (center[:, None] - torch.arange(source)).abs()).clamp(min=0)
