"""SAM 3: masks of everything that the requested words name."""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from maskclippp.errors import InputError
from maskclippp.generators.base import ImageMasks
from maskclippp.generators.hub_models import (
    HubGenerator,
    check_hub_model,
    load_image_processor,
    load_model,
)
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.masks.suppression import suppress
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY
from maskclippp.words.vocabulary import Vocabulary


@SEGMENTOR_REGISTRY.register()
class Sam3Segmentor(HubGenerator):
    """SAM 3 (arXiv 2511.16719), asked for the plainest synonym of every requested class.

    Each word finds its masks on its own, so that several words may claim one object. Masks that
    overlap a better one are dropped, whatever their words; the mask classifier decides which word
    is right.

    Args:
        model: ``transformers.Sam3Model``.
        processor: its image processor.
        min_score: smallest score of a mask for its word.
        max_overlap: largest IoU of two masks; see :func:`suppress`.
        words_per_batch: words whose masks are predicted at once.
    """

    finds_words = True
    # Checkpoints hold a tracker for videos too, which is not used.
    hub_model_types = ("sam3", "sam3_video")

    @configurable
    def __init__(
        self,
        *,
        model: nn.Module,
        processor: Any,
        min_score: float = 0.3,
        max_overlap: float = 0.7,
        words_per_batch: int = 8,
    ) -> None:
        super().__init__(model=model, processor=processor)
        if words_per_batch < 1:
            raise InputError(
                f"SEGMENTOR.SAM3.WORDS_PER_BATCH: expected >= 1, found {words_per_batch}"
            )
        self.min_score = min_score
        self.max_overlap = max_overlap
        self.words_per_batch = words_per_batch
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config; loads the weights."""
        from transformers import Sam3Model

        node = cfg.MODEL.MASKCLIPPP.SEGMENTOR
        folder = check_hub_model(node, cls.hub_model_types)
        return {
            **{key.lower(): value for key, value in node.SAM3.items()},
            "model": load_model(Sam3Model, folder),
            "processor": load_image_processor(folder),
        }

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """See :class:`MaskGenerator`: the words that masks are found for."""
        self._vocabulary = vocabulary

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`.

        Raises:
            InputError: no words were requested.
        """
        if self._vocabulary is None:
            raise InputError(
                "Sam3Segmentor finds masks for words, but none were requested: it serves neither "
                "training nor TEST.SEGMENTOR_ONLY; choose another SEGMENTOR.NAME there"
            )
        words = [synonyms[0] for synonyms in self._vocabulary.classes]
        return [ImageMasks(self._masks(record["image"], words)) for record in records]

    def _masks(self, image: Tensor, words: Sequence[str]) -> SoftMasks:
        inputs = self._inputs([image])
        features = self.model.get_vision_features(inputs["pixel_values"])
        tokens = open_clip.tokenize(
            list(words), self.model.config.text_config.max_position_embeddings
        ).to(inputs["pixel_values"].device)
        found = [
            self._masks_of_words(features, batch) for batch in tokens.split(self.words_per_batch)
        ]
        masks, scores = map(torch.cat, zip(*found, strict=True))
        return SoftMasks(masks[suppress(masks > 0.5, scores, self.max_overlap)])

    def _masks_of_words(self, features: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [n, h, w] and scores [n] of the masks of some words in one image."""
        # The end token has the largest number; what follows it is padding.
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        is_text = (positions <= tokens.argmax(dim=1, keepdim=True)).long()
        outputs = self.model(
            vision_embeds=_repeated(features, len(tokens)),
            text_embeds=self.model.get_text_features(tokens, is_text),
            attention_mask=is_text,
        )
        scores = outputs.pred_logits.float().sigmoid()
        if outputs.presence_logits is not None:
            scores = scores * outputs.presence_logits.float().sigmoid()
        good = scores > self.min_score
        return outputs.pred_masks[good].float().sigmoid(), scores[good]


def _repeated(features: Any, times: int) -> Any:
    """The features of one image, for each of several words."""
    names = ("fpn_hidden_states", "fpn_position_encoding")
    maps = {name: tuple(m.expand(times, -1, -1, -1) for m in features[name]) for name in names}
    return type(features)(**maps)
