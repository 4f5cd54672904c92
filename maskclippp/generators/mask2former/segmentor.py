"""Mask2Former (arXiv 2112.01527), and the base of generators of its kind."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from maskclippp.clip.visual_encoder import VisualEncoder, build_visual_encoder
from maskclippp.errors import InputError
from maskclippp.generators.base import NAME_KEY, ImageMasks, MaskGenerator
from maskclippp.generators.checkpoints import check_present, load_head
from maskclippp.generators.mask2former.class_heads import ClosedVocabularyDecoder
from maskclippp.generators.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from maskclippp.generators.mask2former.transformer_decoder import (
    DecoderOptions,
    MaskedAttentionDecoder,
    MaskPredictions,
)
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY
from maskclippp.words.sources import training_vocabulary
from maskclippp.words.vocabulary import Vocabulary

# Values of VISUAL_ENCODER_F.NAME that mean that no network is run.
_NO_ENCODER = ("none", "DummyVisualEncoder")


class MaskTransformerSegmentor(MaskGenerator):
    """Image encoder -> pixel decoder -> transformer decoder -> masks and their classes.

    Args:
        encoder: the image encoder (VISUAL_ENCODER_F).
        pixel_decoder: feature maps -> mask features and maps for the transformer.
        predictor: these -> masks and classes.
    """

    def __init__(
        self,
        *,
        encoder: VisualEncoder,
        pixel_decoder: MSDeformAttnPixelDecoder,
        predictor: MaskedAttentionDecoder,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """See :class:`MaskGenerator`: there must be an encoder and the checkpoint."""
        node = cfg.MODEL.MASKCLIPPP
        if node.VISUAL_ENCODER_F.NAME in _NO_ENCODER:
            raise InputError(
                f"{NAME_KEY}: {node.SEGMENTOR.NAME!r} decodes the feature maps of an encoder of "
                f"its own, but MODEL.MASKCLIPPP.VISUAL_ENCODER_F.NAME is "
                f"{node.VISUAL_ENCODER_F.NAME!r}; use a config of a generator "
                "(configs/**/fcclip-*, maft-*, m2f-*), another SEGMENTOR.NAME such as "
                "GTSegmentor, or no DATASETS.TEST"
            )
        if node.SEGMENTOR.PRETRAINED != "random":
            check_present(node.SEGMENTOR.PRETRAINED, "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED")

    @property
    def head(self) -> nn.ModuleDict:
        """All modules but the encoder; state-dict keys as in published checkpoints."""
        return nn.ModuleDict({k: v for k, v in self.named_children() if k != "encoder"})

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`; masks at the stride of the mask features."""
        encoded = self.encoder([record["image"] for record in records])
        predictions = self.predict(encoded.maps)
        probabilities = predictions.masks.float().sigmoid()
        logits = self.class_logits(predictions.classes)
        padded_size = (encoded.batch.images.shape[-2], encoded.batch.images.shape[-1])
        return [
            ImageMasks(
                SoftMasks(probabilities[index], Frame(padded_size, size)),
                None if logits is None else logits[index],
                self.own_classes,
                predictions.classes[index] if self.own_classes is None else None,
            )
            for index, size in enumerate(encoded.batch.image_sizes)
        ]

    def predict(
        self, features: dict[str, Tensor], *, with_intermediate: bool = False
    ) -> MaskPredictions:
        """Masks and classes from feature maps by name; see :class:`MaskedAttentionDecoder`."""
        decoded = self.pixel_decoder(features)
        return self.predictor(
            decoded.multi_scale_features,
            decoded.mask_features,
            with_intermediate=with_intermediate,
        )

    @property
    def own_classes(self) -> Vocabulary | None:
        """See :class:`ImageMasks`."""
        return None

    @abstractmethod
    def class_logits(self, classes: Tensor) -> Tensor | None:
        """float32 [B, Q, K + 1], void last, from what :class:`MaskPredictions` says of the classes.

        None for masks without classes.
        """


@SEGMENTOR_REGISTRY.register()
class Mask2FormerSegmentor(MaskTransformerSegmentor):
    """Mask2Former: classifies its masks into the classes that it was trained on.

    Args:
        classes: these classes (DATASETS.TRAIN).
        parts: see :class:`MaskTransformerSegmentor`; a predictor of a closed vocabulary.
    """

    @configurable
    def __init__(self, *, classes: Vocabulary, **parts: Any) -> None:
        super().__init__(**parts)
        self.classes = classes

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config; loads the weights."""
        encoder = build_encoder(cfg)
        head = {
            "pixel_decoder": pixel_decoder_of(cfg, encoder),
            "predictor": ClosedVocabularyDecoder(
                options=decoder_options_of(cfg), num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
            ),
        }
        load_head(head, cfg.MODEL.MASKCLIPPP.SEGMENTOR)
        classes = training_vocabulary(cfg.DATASETS.TRAIN, cfg.DATASETS.VOCABULARY)
        if classes is None and cfg.MODEL.MASKCLIPPP.TEST.ENSEMBLE_ON:
            raise InputError(
                "TEST.ENSEMBLE_ON: the classes of Mask2FormerSegmentor are those of "
                "DATASETS.TRAIN, which is empty; name its training set there, or set "
                "TEST.ENSEMBLE_ON False"
            )
        return {"encoder": encoder, **head, "classes": classes or Vocabulary(())}

    @property
    def own_classes(self) -> Vocabulary:
        """See :class:`ImageMasks`."""
        return self.classes

    def class_logits(self, classes: Tensor) -> Tensor:
        """See :class:`MaskTransformerSegmentor`."""
        return classes.float()


def build_encoder(cfg: CfgNode) -> VisualEncoder:
    """The generator's image encoder: VISUAL_ENCODER_F of a complete config."""
    return build_visual_encoder(
        cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F, "VISUAL_ENCODER_F", cfg.MODEL
    )


def pixel_decoder_of(cfg: CfgNode, encoder: VisualEncoder) -> MSDeformAttnPixelDecoder:
    """The pixel decoder that a complete config describes, for the maps of an encoder.

    Raises:
        InputError: SEGMENTOR.IN_FEATURES names a map that the encoder does not return.
    """
    head, node = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASKCLIPPP.SEGMENTOR
    shapes = encoder.feature_shapes()
    missing = [name for name in node.IN_FEATURES if name not in shapes]
    if missing:
        raise InputError(
            f"MODEL.MASKCLIPPP.SEGMENTOR.IN_FEATURES: {missing} are not feature maps of "
            f"{type(encoder).__name__}; VISUAL_ENCODER_F.OUT_FEATURES gives "
            f"{sorted(shapes)}"
        )
    return MSDeformAttnPixelDecoder(
        channels={name: shapes[name].channels for name in node.IN_FEATURES},
        strides={name: shapes[name].stride for name in node.IN_FEATURES},
        transformer_in_features=node.TRANSFORMER_IN_FEATURES,
        conv_dim=head.CONVS_DIM,
        mask_dim=head.MASK_DIM,
        norm=head.NORM,
        num_layers=head.TRANSFORMER_ENC_LAYERS,
        num_heads=cfg.MODEL.MASK_FORMER.NHEADS,
        num_points=head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS,
        dropout=cfg.MODEL.MASK_FORMER.DROPOUT,
        common_stride=head.COMMON_STRIDE,
    )


def decoder_options_of(cfg: CfgNode) -> DecoderOptions:
    """The options of the transformer decoder in a complete config."""
    node, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
    return DecoderOptions(
        input_dim=head.CONVS_DIM,
        hidden_dim=node.HIDDEN_DIM,
        mask_dim=head.MASK_DIM,
        num_queries=node.NUM_OBJECT_QUERIES,
        # DEC_LAYERS also counts the prediction from the initial queries.
        num_layers=node.DEC_LAYERS - 1,
        num_heads=node.NHEADS,
        feedforward_dim=node.DIM_FEEDFORWARD,
        pre_norm=node.PRE_NORM,
        enforce_input_projection=node.ENFORCE_INPUT_PROJ,
    )
