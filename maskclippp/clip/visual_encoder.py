"""The interface of visual encoders: images and masks in, one embedding per mask out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskclippp.errors import InputError
from maskclippp.masks.batching import InputFormat, PaddedBatch, Resize, pad_batch
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.registry import VISUAL_ENCODER_REGISTRY, get_part


@dataclass
class EncodedImages:
    """What a visual encoder makes of B images with N masks in all; embeddings not normalized.

    Attributes:
        batch: the padded input.
        mask_embeddings: [N, D], or None when no masks were given.
        mask_areas: [N] area of every mask on the feature grid, in cells.
        maps: other outputs by the names asked for in OUT_FEATURES, suffix included: ``p_embs``
            (patch embeddings [B, D, h, w]), ``i_embs`` (image embedding [B, D, 1, 1]), and those
            of each encoder.
    """

    batch: PaddedBatch
    mask_embeddings: Tensor | None = None
    mask_areas: Tensor | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)

    def float(self) -> "EncodedImages":
        """The same in float32."""
        return EncodedImages(
            self.batch,
            None if self.mask_embeddings is None else self.mask_embeddings.float(),
            self.mask_areas,
            {name: feature_map.float() for name, feature_map in self.maps.items()},
        )


@dataclass(frozen=True)
class FeatureShape:
    """Channels of a feature map, and image pixels per cell side."""

    channels: int
    stride: int


class _NeededOptions(TypedDict):
    input_format: InputFormat
    out_features: Sequence[str]


class EncoderOptions(_NeededOptions, total=False):
    """Keyword arguments that every encoder takes and hands on; see :class:`VisualEncoder`."""

    feature_suffix: str
    frozen: bool
    gradient_checkpointing: bool


class VisualEncoder(nn.Module, ABC):
    """Base of the visual encoders: input processing here, the network in :meth:`encode`.

    Args:
        input_format: channel statistics, resizing and padding of the input.
        out_features: names of the outputs to compute, without suffix.
        feature_suffix: appended to the names of ``EncodedImages.maps``.
        frozen: no parameter is trained; the test-time resizing is then used in training too.
        gradient_checkpointing: keep no activations of blocks for the backward pass, compute them
            again there.
        valid_features: what ``out_features`` may hold; default: what all models of the class have.
    """

    valid_features: tuple[str, ...] = ()
    # Arguments of from_config that are sections of MODEL, outside the encoder's own node.
    model_sections: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        *,
        input_format: InputFormat,
        out_features: Sequence[str],
        feature_suffix: str = "",
        frozen: bool = True,
        gradient_checkpointing: bool = False,
        valid_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if valid_features is not None:
            self.valid_features = tuple(valid_features)
        unknown = sorted(set(out_features) - set(self.valid_features))
        if unknown:
            raise InputError(
                f"{type(self).__name__}: OUT_FEATURES has {unknown}; "
                f"valid names are {list(self.valid_features)}"
            )
        self.input_format = input_format
        self.out_features = tuple(out_features)
        self.feature_suffix = feature_suffix
        self.frozen = frozen
        self.gradient_checkpointing = gradient_checkpointing

    def train(self, mode: bool = True) -> "VisualEncoder":
        """See ``nn.Module``; a frozen encoder stays in evaluation mode: no stochastic depth."""
        super().train(mode and not self.frozen)
        return self

    def forward(
        self, images: Sequence[Tensor], masks: Sequence[SoftMasks] | None = None
    ) -> EncodedImages:
        """Encode images [3, h, w] (0..255) and, per image, its masks (there may be none)."""
        fmt = self.input_format
        resize = fmt.train_resize if self.training and not self.frozen else fmt.test_resize
        batch = pad_batch(images, masks, fmt, resize, self.device)
        return self.encode(batch, with_masks=masks is not None)

    @abstractmethod
    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """Run the network on a padded batch."""

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """The feature maps among the outputs, by the names of ``EncodedImages.maps``.

        A generator that decodes feature maps is built for them.
        """
        return {}

    def blocks(self) -> Iterator[nn.Module]:
        """The modules in which most of the time goes: ``COMPILE`` compiles each of them."""
        return iter(())

    def _check_one_cell(self, batch: PaddedBatch, stride: int) -> None:
        """Raise a ValueError if the batch is smaller than one cell of the last feature map."""
        height, width = batch.images.shape[-2:]
        if min(height, width) < stride:
            raise InputError(
                f"{type(self).__name__}: padded images of {height} x {width} pixels are smaller "
                f"than the stride of {stride}; set VISUAL_ENCODER.SIZE_DIVISIBILITY to {stride}"
            )

    def _run_block(self, block: Callable[..., Any], *arguments: Any) -> Any:
        """Call a part of the network, with gradient checkpointing if it is asked for."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)

    def _keep(
        self, encoded: EncodedImages, name: str, compute: Callable[..., Tensor], *arguments: Any
    ) -> None:
        """Compute an output if OUT_FEATURES asks for it."""
        if name in self.out_features:
            encoded.maps[name + self.feature_suffix] = compute(*arguments)

    @property
    def device(self) -> torch.device:
        """The device of the parameters, to which inputs are moved."""
        return next(self.parameters()).device


def input_arguments(node: CfgNode) -> EncoderOptions:
    """Keyword arguments of :class:`VisualEncoder` from a VISUAL_ENCODER config node."""
    suffix = node.FEATURE_SUFFIX
    return {
        "input_format": InputFormat(
            pixel_mean=node.PIXEL_MEAN,
            pixel_std=node.PIXEL_STD,
            size_divisibility=node.SIZE_DIVISIBILITY,
            train_resize=Resize(node.RESIZE_TYPE, node.IMAGE_SIZE, node.IMAGE_SCALE),
            test_resize=Resize(node.TEST_RESIZE_TYPE, node.TEST_IMAGE_SIZE, node.TEST_IMAGE_SCALE),
        ),
        "out_features": [name.removesuffix(suffix) for name in node.OUT_FEATURES],
        "feature_suffix": suffix,
        "frozen": node.FINETUNE_TYPE == "none",
        "gradient_checkpointing": node.GRADIENT_CHECKPOINTING,
    }


def build_visual_encoder(
    node: CfgNode, key: str = "VISUAL_ENCODER", model: CfgNode | None = None
) -> VisualEncoder:
    """Build the encoder that a VISUAL_ENCODER (or VISUAL_ENCODER_F) config node describes.

    ``model`` is MODEL of the complete config, which detectron2's backbones have sections in.
    """
    name_key = f"MODEL.MASKCLIPPP.{key}.NAME"
    encoder_class = get_part(VISUAL_ENCODER_REGISTRY, node.NAME, name_key)
    settings = {}
    if model is not None:
        sections = encoder_class.model_sections
        settings = {argument: model[section] for argument, section in sections.items()}
    encoder: VisualEncoder = encoder_class(node, **settings)
    if node.CHANNELS_LAST:
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if node.COMPILE:
        _check_backend(node.COMPILE, f"MODEL.MASKCLIPPP.{key}.COMPILE")
        for block in encoder.blocks():
            block.compile(backend=node.COMPILE)
    return encoder


def _check_backend(name: str, key: str) -> None:
    if name not in torch._dynamo.list_backends(exclude_tags=()):
        usual = torch._dynamo.list_backends()  # not those that are for debugging
        raise InputError(f"{key}: {name!r} is no backend of torch.compile; there are {usual}")
