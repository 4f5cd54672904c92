"""Mask decoders with their classifiers: over a closed vocabulary (Mask2Former), or by class
embeddings that are compared with text (FC-CLIP, arXiv 2308.02487; MAFT+, arXiv 2408.00744).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from maskclippp.clip.similarity import clamped_scale
from maskclippp.errors import InputError
from maskclippp.generators.mask2former.decoder_layers import MLP
from maskclippp.generators.mask2former.transformer_decoder import (
    DecoderOptions,
    MaskedAttentionDecoder,
)
from maskclippp.inference.class_logits import max_over_synonyms


class ClosedVocabularyDecoder(MaskedAttentionDecoder):
    """Mask2Former: a linear classifier over K training classes and void.

    ``classes`` of its predictions are logits [B, Q, K + 1], void last.
    """

    def __init__(self, *, options: DecoderOptions, num_classes: int) -> None:
        super().__init__(options)
        self.class_embed = nn.Linear(options.hidden_dim, num_classes + 1)

    @override
    def classify(self, states: Tensor, masks: Tensor, mask_features: Tensor) -> Tensor:
        """See :class:`MaskedAttentionDecoder`."""
        return self.class_embed(states)


class OpenVocabularyDecoder(MaskedAttentionDecoder):
    """FC-CLIP and MAFT+: class embeddings from queries and mask-pooled mask features.

    ``classes`` of its predictions are embeddings [B, Q, D] of length 1; :meth:`class_logits`
    compares them with text embeddings.

    Args:
        options: with ``mask_dim`` equal to ``hidden_dim``, because pooled mask features are added
            to the queries.
        embedding_dim: D, width of the text embeddings.
    """

    def __init__(self, *, options: DecoderOptions, embedding_dim: int) -> None:
        super().__init__(options)
        width = options.hidden_dim
        if options.mask_dim != width:
            raise InputError(
                "a decoder of an open vocabulary adds pooled mask features to its queries: their "
                f"widths MODEL.SEM_SEG_HEAD.MASK_DIM ({options.mask_dim}) and "
                f"MODEL.MASK_FORMER.HIDDEN_DIM ({width}) must be equal"
            )
        self._mask_pooling_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.class_embed = MLP(input_dim=width, hidden_dim=width, output_dim=embedding_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def classify(self, states: Tensor, masks: Tensor, mask_features: Tensor) -> Tensor:
        """See :class:`MaskedAttentionDecoder`."""
        pooled = self._mask_pooling_proj(pool_positive_cells(mask_features, masks))
        return F.normalize(self.class_embed(states + pooled).float(), dim=-1)

    def class_logits(
        self,
        class_embeddings: Tensor,
        synonym_embeddings: Tensor,
        void_embedding: Tensor,
        class_of_synonym: Tensor,
        num_classes: int,
    ) -> Tensor:
        """Scaled similarity with the best synonym of every class, and with void.

        Args:
            class_embeddings: [B, Q, D] of length 1.
            synonym_embeddings: [Ka, D] of length 1.
            void_embedding: learned embedding of "none of the classes", [1, D] of any length.
            class_of_synonym: int64 [Ka], the class of every synonym.
            num_classes: K.

        Returns:
            float32 [B, Q, K + 1], void last.
        """
        similarities = self.synonym_logits(class_embeddings, synonym_embeddings, void_embedding)
        logits = max_over_synonyms(similarities.flatten(0, 1), class_of_synonym, num_classes)
        return logits.unflatten(0, class_embeddings.shape[:2])

    def synonym_logits(
        self, class_embeddings: Tensor, synonym_embeddings: Tensor, void_embedding: Tensor
    ) -> Tensor:
        """Scaled similarity with every synonym, and with void: float32 [B, Q, Ka + 1].

        Computed in float32, even under autocast: in half precision similar words tie.
        """
        with torch.autocast(class_embeddings.device.type, enabled=False):
            void = F.normalize(void_embedding.float(), dim=-1)
            text = torch.cat([synonym_embeddings.float(), void])
            return clamped_scale(self.logit_scale.float()) * (class_embeddings.float() @ text.T)


def pool_positive_cells(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features over the cells with a positive mask logit; zeros if there are none.

    Computed in float32, even under autocast: a sum over a whole image overflows float16.

    Args:
        features: [B, C, h, w].
        masks: logits [B, Q, h, w].

    Returns:
        [B, Q, C]. No gradient flows into the masks.
    """
    with torch.autocast(features.device.type, enabled=False):
        inside = (masks > 0).flatten(2).float()
        sums = inside @ features.float().flatten(2).transpose(1, 2)
        means = sums / inside.sum(dim=-1, keepdim=True).clamp(min=1)
    return means.to(features.dtype)
