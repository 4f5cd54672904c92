"""FC-CLIP (arXiv 2308.02487) and MAFT+ (arXiv 2408.00744): masks classified into any vocabulary."""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from maskclippp.clip.model_names import embedding_width
from maskclippp.clip.text_tower import build_text_tower
from maskclippp.devices import copied_to
from maskclippp.generators.base import ImageMasks
from maskclippp.generators.checkpoints import load_head
from maskclippp.generators.mask2former.class_heads import OpenVocabularyDecoder
from maskclippp.generators.mask2former.segmentor import (
    MaskTransformerSegmentor,
    build_encoder,
    decoder_options_of,
    pixel_decoder_of,
)
from maskclippp.registry import SEGMENTOR_REGISTRY, TEXT_ENCODER_REGISTRY, get_part
from maskclippp.words.templates import get_templates
from maskclippp.words.text_classifier import TextClassifier
from maskclippp.words.vocabulary import Vocabulary


@SEGMENTOR_REGISTRY.register()
class FCCLIPSegmentor(MaskTransformerSegmentor):
    """Mask2Former's decoders on a frozen CLIP, with a text classifier of its own.

    The text tower is not part of the state dict, as in the published checkpoints.

    Args:
        void_embedding: one learned row, the embedding of "none of the classes".
        text_classifier: of TEXT_ENCODER_F and TEMPLATES_F; None: masks only, no classes.
        parts: see :class:`MaskTransformerSegmentor`; an open-vocabulary predictor whose class
            embeddings have the text tower's width.
    """

    @configurable
    def __init__(
        self,
        *,
        void_embedding: nn.Embedding,
        text_classifier: TextClassifier | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.void_embedding = void_embedding
        self.text_classifier = text_classifier
        self._vocabulary: Vocabulary | None = None
        self._text: Tensor | None = None

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """See :class:`MaskGenerator`; the text tower and its templates must be known as well."""
        super().check_config(cfg)
        node = cfg.MODEL.MASKCLIPPP
        name_key = "MODEL.MASKCLIPPP.TEXT_ENCODER_F.NAME"
        get_part(TEXT_ENCODER_REGISTRY, node.TEXT_ENCODER_F.NAME, name_key)
        get_templates(node.TEMPLATES_F, "TEMPLATES_F")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config; loads the weights."""
        node = cfg.MODEL.MASKCLIPPP
        encoder = build_encoder(cfg)
        tower = build_text_tower(node.TEXT_ENCODER_F, "TEXT_ENCODER_F").to(cfg.MODEL.DEVICE)
        width = embedding_width(node.TEXT_ENCODER_F.MODEL_NAME)
        head = {
            "pixel_decoder": pixel_decoder_of(cfg, encoder),
            "predictor": OpenVocabularyDecoder(
                options=decoder_options_of(cfg), embedding_dim=width
            ),
            "void_embedding": nn.Embedding(1, width),
        }
        load_head(head, node.SEGMENTOR)
        return {
            "encoder": encoder,
            **head,
            "text_classifier": TextClassifier(
                tower.eval(),
                get_templates(node.TEMPLATES_F, "TEMPLATES_F"),
                chunk_size=node.TEXT_CHUNK_SIZE,
                cache=node.TEXT_CACHE,
            ),
        }

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """See :class:`MaskGenerator`; in a distributed run all processes must call it together."""
        if vocabulary == self._vocabulary or self.text_classifier is None:
            return
        # Means over the templates of unit vectors, brought back to unit length: [Ka, D].
        embeddings = self.text_classifier.embed_frozen(vocabulary.synonyms).mean(dim=1)
        self._text = F.normalize(embeddings, dim=-1)
        self._vocabulary = vocabulary

    @property
    def text(self) -> Tensor | None:
        """[Ka, D] of length 1, of all synonyms; None before :meth:`set_vocabulary`."""
        return self._text

    def reclassify(self, found: ImageMasks, vocabulary: Vocabulary) -> ImageMasks:
        """See :class:`MaskGenerator`."""
        self.set_vocabulary(vocabulary)
        assert found.class_embeddings is not None
        logits = self.class_logits(found.class_embeddings[None])
        return replace(found, logits=None if logits is None else logits[0])

    def synonym_logits(self, classes: Tensor, text: Tensor) -> Tensor:
        """float32 [B, Q, Ka + 1], void last, from class embeddings and text [Ka, D] of length 1."""
        assert isinstance(self.predictor, OpenVocabularyDecoder)
        return self.predictor.synonym_logits(classes, text, self.void_embedding.weight)

    def class_logits(self, classes: Tensor) -> Tensor | None:
        """See :class:`MaskTransformerSegmentor`; None before :meth:`set_vocabulary`."""
        if self._vocabulary is None or self._text is None:
            return None
        assert isinstance(self.predictor, OpenVocabularyDecoder)
        return self.predictor.class_logits(
            classes,
            copied_to(self._text, classes.device),
            self.void_embedding.weight,
            copied_to(self._vocabulary.class_of_synonym, classes.device),
            len(self._vocabulary),
        )
