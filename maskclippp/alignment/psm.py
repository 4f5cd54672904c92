"""Parametric similarity modeling (paper section 3): small modules that treat all classes alike.

N masks of B images, Ka synonyms, T templates, embedding width D. A new module is one file with one
registered subclass of :class:`PSM`.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from typing_extensions import override

from maskclippp.clip.model_names import embedding_width
from maskclippp.clip.similarity import clamped_scale
from maskclippp.clip.visual_encoder import EncodedImages
from maskclippp.errors import InputError
from maskclippp.masks.batching import pad_ragged, unpad_ragged
from maskclippp.registry import PSM_REGISTRY, Part, get_part
from maskclippp.words.templates import get_templates


class PSM(Part):
    """Maps similarities to logits."""

    @abstractmethod
    def forward(self, correlation: Tensor, encoded: EncodedImages, text: Tensor) -> Tensor:
        """Map similarities to logits.

        Args:
            correlation: [N, Ka, T] similarity of every mask with every synonym in every template.
            encoded: the images and their mask embeddings.
            text: [Ka, T, D] normalized text embeddings.

        Returns:
            [N, Ka] logits.
        """


@PSM_REGISTRY.register()
class DummyPSM(PSM):
    """The mean over templates: plain CLIP."""

    @override
    def forward(self, correlation: Tensor, encoded: EncodedImages, text: Tensor) -> Tensor:
        """See :class:`PSM`."""
        return correlation.mean(dim=-1)


@PSM_REGISTRY.register()
class LinearPSM(PSM):
    """Two linear maps over the templates, T -> corr_width -> 1, with no activation between."""

    @configurable
    def __init__(self, *, num_templates: int, corr_width: int) -> None:
        super().__init__()
        # Sequential, because published checkpoints name the layers ``corr_proj_in.0`` and so on.
        self.corr_proj_in = nn.Sequential(nn.Linear(num_templates, corr_width))
        self.corr_proj_out = nn.Sequential(nn.Linear(corr_width, 1))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config."""
        node = cfg.MODEL.MASKCLIPPP
        return {
            "num_templates": len(get_templates(node.TEMPLATES)),
            "corr_width": node.PSM.CORR_WIDTH,
        }

    @override
    def forward(self, correlation: Tensor, encoded: EncodedImages, text: Tensor) -> Tensor:
        """See :class:`PSM`."""
        return _weigh_templates(correlation, self.corr_proj_in[0], self.corr_proj_out[0])


@PSM_REGISTRY.register()
class PseudoTextPSM(PSM):
    """Text embeddings attend to the image; masks are compared with the result.

    Args:
        in_features: names of the feature maps to attend to, concatenated as tokens.
        in_width: channels C of these maps.
        width: embedding width D.
        num_heads: attention heads.
        attention_dropout: of the attention weights.
        hidden_dropout: of the attention output.
        normalize: L2-normalize the image tokens over channels.
        detach: stop the gradient at the image tokens.
        use_logit_scale: multiply by a separate clamped scale, initially 1 / 0.07.
        residual_templates: if > 0, the number of templates T of a residual: linear maps
            T -> residual_width -> 1 of the similarities.
        residual_width: hidden width of the residual.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        in_width: int,
        width: int,
        num_heads: int = 8,
        attention_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        normalize: bool = False,
        detach: bool = False,
        use_logit_scale: bool = False,
        residual_templates: int = 0,
        residual_width: int = 640,
    ) -> None:
        super().__init__()
        if not in_features:
            raise InputError(
                "PseudoTextPSM: PSM.IN_FEATURES is empty; name the maps that the text attends to, "
                "for example ['p_embs'], and list them in VISUAL_ENCODER.OUT_FEATURES"
            )
        self.in_features = tuple(in_features)
        self.normalize = normalize
        self.detach = detach
        self.img_proj = nn.Linear(in_width, width, bias=False)
        self.img2text = nn.MultiheadAttention(
            width, num_heads, dropout=attention_dropout, batch_first=True
        )
        self.ln_1 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(hidden_dropout)
        self.logit_scale = (
            nn.Parameter(torch.tensor(math.log(1 / 0.07))) if use_logit_scale else None
        )
        self.corrs_in = self.corrs_out = None
        if residual_templates:
            self.corrs_in = nn.Linear(residual_templates, residual_width)
            self.corrs_out = nn.Linear(residual_width, 1)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config."""
        node = cfg.MODEL.MASKCLIPPP.PSM
        width = embedding_width(cfg.MODEL.MASKCLIPPP.TEXT_ENCODER.MODEL_NAME)
        num_templates = len(get_templates(cfg.MODEL.MASKCLIPPP.TEMPLATES))
        return {
            "in_features": node.IN_FEATURES,
            "in_width": width,
            "width": width,
            "num_heads": node.NUM_HEADS,
            "attention_dropout": node.ATTENTION_PROBS_DROPOUT_PROB,
            "hidden_dropout": node.HIDDEN_DROPOUT_PROB,
            "normalize": node.NORM_VISUAL_COND,
            "detach": node.DETACH_VISUAL_COND,
            "use_logit_scale": node.USE_LOGIT_SCALE,
            "residual_templates": num_templates if node.CORR_RESIDUAL else 0,
            "residual_width": node.CORR_WIDTH,
        }

    def forward(self, correlation: Tensor, encoded: EncodedImages, text: Tensor) -> Tensor:
        """See :class:`PSM`."""
        assert encoded.mask_embeddings is not None
        counts = encoded.batch.masks_per_image
        if sum(counts) == 0:
            return correlation.mean(dim=-1)
        pseudo_text = self._pseudo_text(encoded, text)  # [B, Ka, D]
        masks = pad_ragged(F.normalize(encoded.mask_embeddings, dim=-1), counts)  # [B, Q, D]
        logits = unpad_ragged(masks @ pseudo_text.transpose(1, 2), counts)
        if self.logit_scale is not None:
            logits = logits * clamped_scale(self.logit_scale)
        if self.corrs_in is not None and self.corrs_out is not None:
            logits = logits + _weigh_templates(correlation, self.corrs_in, self.corrs_out)
        return logits

    def _pseudo_text(self, encoded: EncodedImages, text: Tensor) -> Tensor:
        tokens = torch.cat([self._map(encoded, name) for name in self.in_features], dim=1)
        if self.detach:
            tokens = tokens.detach()
        if self.normalize:
            tokens = F.normalize(tokens, dim=-1)
        tokens = self.img_proj(tokens)  # [B, hw, D]
        queries = F.normalize(text.mean(dim=1), dim=-1).expand(len(tokens), -1, -1)
        attended, _ = self.img2text(queries, tokens, tokens, need_weights=False)
        pseudo_text: Tensor = self.ln_1(queries + self.dropout(attended))
        return pseudo_text

    def _map(self, encoded: EncodedImages, name: str) -> Tensor:
        if name not in encoded.maps:
            raise InputError(
                f"PSM.IN_FEATURES: {name!r} is not computed; VISUAL_ENCODER.OUT_FEATURES gives "
                f"{sorted(encoded.maps)}"
            )
        return encoded.maps[name].flatten(2).transpose(1, 2)


def _weigh_templates(correlation: Tensor, inner: nn.Module, outer: nn.Module) -> Tensor:
    """outer(inner(correlation)) for [N, Ka, T] -> [N, Ka].

    Without an activation between them the two maps are one: a weighted sum over templates. Folding
    them avoids the N x Ka x width intermediate; the gradients are the same.
    """
    assert isinstance(inner, nn.Linear)
    assert isinstance(outer, nn.Linear)
    weight = outer.weight @ inner.weight  # [1, T]
    bias = outer.weight @ inner.bias + outer.bias  # [1]
    return F.linear(correlation, weight, bias).squeeze(-1)


def build_psm(cfg: CfgNode) -> PSM:
    """Build the alignment module that the config names."""
    name = cfg.MODEL.MASKCLIPPP.PSM.NAME
    psm: PSM = get_part(PSM_REGISTRY, name, "MODEL.MASKCLIPPP.PSM.NAME")(cfg)
    return psm
