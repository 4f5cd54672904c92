"""The interface of visual encoders: images and masks in, one embedding per mask out.

A new encoder is one file with one registered subclass of :class:`VisualEncoder` that implements
:meth:`VisualEncoder.encode`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, TypedDict

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from maskclippp.clip.families import encoder_name
from maskclippp.clip.finetuning import Patterns, set_trainable
from maskclippp.clip.open_clip_models import load_visual_tower
from maskclippp.clip.pixel_statistics import pixel_statistics
from maskclippp.clip.towers import Size
from maskclippp.errors import InputError
from maskclippp.masks.batching import InputFormat, PaddedBatch, Resize, pad_batch
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.registry import VISUAL_ENCODER_REGISTRY, get_part


@dataclass
class EncodedImages:
    """The outputs of a visual encoder for B images with N masks in all.

    Attributes:
        batch: the padded input.
        mask_embeddings: [N, D], not normalized; None without masks.
        mask_areas: [N], the area of each mask on the feature grid, in cells; None without masks.
        maps: other outputs by their names in OUT_FEATURES, suffix included: ``p_embs`` (patch
            embeddings [B, D, h, w], not normalized), ``i_embs`` (image embedding [B, D, 1, 1]),
            and those of each encoder.
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
    proxy: nn.Module
    input_format: InputFormat
    out_features: Sequence[str]


class EncoderOptions(_NeededOptions, total=False):
    """Keyword arguments that every encoder passes to :class:`VisualEncoder`."""

    feature_suffix: str
    finetune_type: str
    gradient_checkpointing: bool


class VisualEncoder(nn.Module, ABC):
    """Base of the visual encoders: input processing here, the network in :meth:`encode`.

    Args:
        proxy: the pretrained network; state-dict keys of checkpoints start with ``proxy.``.
        input_format: channel statistics, resizing and padding of the input.
        out_features: names of the outputs to compute, without suffix.
        feature_suffix: appended to the names in ``EncodedImages.maps``.
        finetune_type: which parameters of ``proxy`` are trained, a key of ``finetuned_patterns``.
        gradient_checkpointing: recompute the activations of blocks in the backward pass instead
            of storing them.
        valid_features: allowed ``out_features`` of this model; default: those of the class.
        finetuned_patterns: likewise.

    Raises:
        InputError: an unknown output or FINETUNE_TYPE.
    """

    valid_features: tuple[str, ...] = ()
    # The parameters that each FINETUNE_TYPE trains, as shell patterns of their names in ``proxy``.
    finetuned_patterns: Mapping[str, Patterns] = {"none": (), "all": ("*",)}
    # Arguments of from_config that are sections of MODEL, outside the encoder's own node.
    model_sections: ClassVar[Mapping[str, str]] = {}

    @configurable
    def __init__(
        self,
        *,
        proxy: nn.Module,
        input_format: InputFormat,
        out_features: Sequence[str],
        feature_suffix: str = "",
        finetune_type: str = "none",
        gradient_checkpointing: bool = False,
        valid_features: Sequence[str] | None = None,
        finetuned_patterns: Mapping[str, Patterns] | None = None,
    ) -> None:
        super().__init__()
        if valid_features is not None:
            self.valid_features = tuple(valid_features)
        if finetuned_patterns is not None:
            self.finetuned_patterns = finetuned_patterns
        unknown = sorted(set(out_features) - set(self.valid_features))
        if unknown:
            raise InputError(
                f"{type(self).__name__}: OUT_FEATURES has {unknown}; "
                f"valid names are {list(self.valid_features)}"
            )
        self.input_format = input_format
        self.out_features = tuple(out_features)
        self.feature_suffix = feature_suffix
        self.finetune_type = finetune_type
        self.gradient_checkpointing = gradient_checkpointing
        self.proxy = proxy
        set_trainable(proxy, finetune_type, self.finetuned_patterns, type(self).__name__)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from a VISUAL_ENCODER node; loads the open_clip image tower that it names."""
        return {**input_arguments(cfg), "proxy": load_visual_tower(cfg)}

    @property
    def frozen(self) -> bool:
        """No parameter is trained; the test-time resizing is then used in training, too."""
        return self.finetune_type == "none"

    def train(self, mode: bool = True) -> "VisualEncoder":
        """See ``nn.Module``.

        A frozen encoder stays in evaluation mode: no stochastic depth. BatchNorms that are not
        trained keep their statistics.
        """
        super().train(mode and not self.frozen)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
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
        """Run the network on a padded batch.

        Sets ``mask_embeddings`` and ``mask_areas`` if ``with_masks``, and keeps every output that
        OUT_FEATURES asks for (:meth:`_keep`).
        """

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """The feature maps among the outputs, by their names in ``EncodedImages.maps``.

        Generators that decode feature maps need it.
        """
        return {}

    def blocks(self) -> Iterator[nn.Module]:
        """The modules that take most of the time; ``COMPILE`` compiles each of them."""
        return iter(())

    def _check_one_cell(self, batch: PaddedBatch, stride: int) -> None:
        """Raise an InputError if the batch is smaller than one cell of the last feature map."""
        height, width = batch.images.shape[-2:]
        if min(height, width) < stride:
            raise InputError(
                f"{type(self).__name__}: padded images of {height} x {width} pixels are smaller "
                f"than the stride of {stride}; set VISUAL_ENCODER.SIZE_DIVISIBILITY to {stride}"
            )

    def _check_divides(self, batch: PaddedBatch, stride: int) -> Size:
        """Height and width of the feature map; an InputError if cells do not fill the batch."""
        height, width = batch.images.shape[-2:]
        if height % stride or width % stride:
            raise InputError(
                f"{type(self).__name__}: a padded batch of {height} x {width} pixels does not "
                f"divide into patches of {stride} x {stride}; set "
                f"VISUAL_ENCODER.SIZE_DIVISIBILITY to {stride}"
            )
        return height // stride, width // stride

    def _run_block(self, block: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a part of the network, with gradient checkpointing if configured."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False, **options)
        return block(*arguments, **options)

    def _keep(
        self, encoded: EncodedImages, name: str, output: Tensor | Callable[[], Tensor]
    ) -> None:
        """Keep an output if OUT_FEATURES names it; a function is called only then."""
        if name in self.out_features:
            kept = output if isinstance(output, Tensor) else output()
            encoded.maps[name + self.feature_suffix] = kept

    @property
    def device(self) -> torch.device:
        """The device of the parameters, to which inputs are moved."""
        return next(self.parameters()).device


def input_arguments(node: CfgNode) -> dict[str, Any]:
    """Arguments of :class:`VisualEncoder` from a VISUAL_ENCODER node: all but the network."""
    suffix = node.FEATURE_SUFFIX
    pixel_mean, pixel_std = pixel_statistics(node)
    return {
        "input_format": InputFormat(
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            size_divisibility=node.SIZE_DIVISIBILITY,
            train_resize=Resize(node.RESIZE_TYPE, node.IMAGE_SIZE, node.IMAGE_SCALE),
            test_resize=Resize(node.TEST_RESIZE_TYPE, node.TEST_IMAGE_SIZE, node.TEST_IMAGE_SCALE),
        ),
        "out_features": [name.removesuffix(suffix) for name in node.OUT_FEATURES],
        "feature_suffix": suffix,
        "finetune_type": node.FINETUNE_TYPE,
        "gradient_checkpointing": node.GRADIENT_CHECKPOINTING,
    }


def build_visual_encoder(
    node: CfgNode, key: str = "VISUAL_ENCODER", model: CfgNode | None = None
) -> VisualEncoder:
    """Build the encoder that a VISUAL_ENCODER (or VISUAL_ENCODER_F) config node describes.

    ``model`` is MODEL of the complete config, where detectron2's backbones have their sections.
    """
    name_key = f"MODEL.MASKCLIPPP.{key}.NAME"
    name = encoder_name(node.MODEL_NAME) if node.NAME == "auto" else node.NAME
    encoder_class = get_part(VISUAL_ENCODER_REGISTRY, name, name_key)
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


def counting_once(block: nn.Module) -> Callable[..., Any]:
    """``block`` for gradient checkpointing: only its first call updates its buffers.

    Otherwise running statistics would count each batch twice, when activations are recomputed.
    """
    calls = count()

    def run(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 0:
            return block(*arguments, **options)
        copies = {name: buffer.clone() for name, buffer in block.named_buffers()}
        return functional_call(block, copies, arguments, options)

    return run


def _check_backend(name: str, key: str) -> None:
    if name not in torch._dynamo.list_backends(exclude_tags=()):
        usual = torch._dynamo.list_backends()  # without those for debugging
        raise InputError(f"{key}: {name!r} is not a backend of torch.compile; there are {usual}")
