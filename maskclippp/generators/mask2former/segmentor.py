"""Mask2Former (arXiv 2112.01527), and what generators of its kind have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor

from maskclippp.clip.visual_encoder import EncodedImages, VisualEncoder
from maskclippp.errors import InputError
from maskclippp.generators.base import GeneratedMasks, MaskGenerator
from maskclippp.generators.checkpoints import check_present, load_head
from maskclippp.generators.mask2former.class_heads import ClosedVocabularyDecoder
from maskclippp.generators.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from maskclippp.generators.mask2former.transformer_decoder import (
    DecoderOptions,
    MaskedAttentionDecoder,
    MaskPredictions,
)
from maskclippp.masks.soft_masks import Frame
from maskclippp.registry import SEGMENTOR_REGISTRY


class MaskTransformerSegmentor(MaskGenerator):
    """Feature maps of an encoder -> pixel decoder -> transformer decoder -> masks and classes.

    State-dict keys are those of ``sem_seg_head`` in the published checkpoints.

    Args:
        pixel_decoder: feature maps -> mask features and maps for the transformer.
        predictor: these -> masks and classes.
    """

    reads_features = True

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """See :class:`MaskGenerator`: the checkpoint must be there."""
        node = cfg.MODEL.MASKCLIPPP.SEGMENTOR
        if node.PRETRAINED != "random":
            check_present(node.PRETRAINED, "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED")

    def __init__(
        self, *, pixel_decoder: MSDeformAttnPixelDecoder, predictor: MaskedAttentionDecoder
    ) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        """See :class:`MaskGenerator`; masks at the stride of the mask features."""
        assert encoded is not None
        predictions = self.predict(encoded.maps)
        batch = encoded.batch
        padded_size = (batch.images.shape[-2], batch.images.shape[-1])
        return self._classify(
            GeneratedMasks(
                masks=list(predictions.masks.float().sigmoid()),
                frames=[Frame(padded_size, size) for size in batch.image_sizes],
            ),
            predictions,
        )

    def predict(
        self, features: dict[str, Tensor], *, with_intermediate: bool = False
    ) -> MaskPredictions:
        """Masks and classes from feature maps by name; see :class:`MaskedAttentionDecoder`."""
        decoded = self.pixel_decoder(features)
        predictions: MaskPredictions = self.predictor(
            decoded.multi_scale_features,
            decoded.mask_features,
            with_intermediate=with_intermediate,
        )
        return predictions

    @abstractmethod
    def _classify(self, generated: GeneratedMasks, predictions: MaskPredictions) -> GeneratedMasks:
        """Add logits to the masks."""


@SEGMENTOR_REGISTRY.register()
class Mask2FormerSegmentor(MaskTransformerSegmentor):
    """Mask2Former: classifies its masks into the classes that it was trained on."""

    @configurable
    def __init__(
        self, *, pixel_decoder: MSDeformAttnPixelDecoder, predictor: ClosedVocabularyDecoder
    ) -> None:
        super().__init__(pixel_decoder=pixel_decoder, predictor=predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode, encoder: VisualEncoder) -> dict[str, Any]:
        """Arguments from the complete config and the generator's encoder; loads the weights."""
        parts = {
            "pixel_decoder": pixel_decoder_of(cfg, encoder),
            "predictor": ClosedVocabularyDecoder(
                options=decoder_options_of(cfg), num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
            ),
        }
        load_head(parts, cfg.MODEL.MASKCLIPPP.SEGMENTOR)
        return parts

    def _classify(self, generated: GeneratedMasks, predictions: MaskPredictions) -> GeneratedMasks:
        logits = list(predictions.classes.float())
        return GeneratedMasks(generated.masks, logits, "closed", generated.frames)


def pixel_decoder_of(cfg: CfgNode, encoder: VisualEncoder) -> MSDeformAttnPixelDecoder:
    """The pixel decoder that a complete config describes, for the maps of an encoder.

    Raises:
        ValueError: the encoder does not put out a map that SEGMENTOR.IN_FEATURES names.
    """
    head, node = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASKCLIPPP.SEGMENTOR
    shapes = encoder.feature_shapes()
    missing = [name for name in node.IN_FEATURES if name not in shapes]
    if missing:
        raise InputError(
            f"MODEL.MASKCLIPPP.SEGMENTOR.IN_FEATURES: {missing} are no feature maps that "
            f"{type(encoder).__name__} puts out; VISUAL_ENCODER_F.OUT_FEATURES gives "
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
    """What a complete config says about the transformer decoder."""
    node, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
    return DecoderOptions(
        input_dim=head.CONVS_DIM,
        hidden_dim=node.HIDDEN_DIM,
        mask_dim=head.MASK_DIM,
        num_queries=node.NUM_OBJECT_QUERIES,
        # DEC_LAYERS also counts the prediction from the bare queries.
        num_layers=node.DEC_LAYERS - 1,
        num_heads=node.NHEADS,
        feedforward_dim=node.DIM_FEEDFORWARD,
        pre_norm=node.PRE_NORM,
        enforce_input_projection=node.ENFORCE_INPUT_PROJ,
    )
