"""The interface of mask generators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detectron2.config import CfgNode
from torch import Tensor, nn

from maskclippp.clip.visual_encoder import EncodedImages, VisualEncoder
from maskclippp.registry import SEGMENTOR_REGISTRY, get_part
from maskclippp.soft_masks import Frame, SoftMasks
from maskclippp.vocabulary import Vocabulary


@dataclass(frozen=True)
class GeneratedMasks:
    """Masks of B images.

    Attributes:
        masks: per image [Q, h, w]; bool, or probabilities in [0, 1], at any resolution. Q may be 0
            and may differ between images.
        logits: per image [Q, K + 1] with void last, or None when the generator does not classify.
        classifier: whether the logits are over the test classes ("open") or over the generator's
            own training classes ("closed").
        frames: per image, where it lies in its masks; None when all masks span exactly the image.
    """

    masks: list[Tensor]
    logits: list[Tensor] | None = None
    classifier: Literal["open", "closed"] | None = None
    frames: list[Frame] | None = None

    def soft_masks(self) -> list[SoftMasks]:
        """Per image, the masks with their place."""
        if self.frames is None:
            return [SoftMasks(masks) for masks in self.masks]
        return [SoftMasks(*parts) for parts in zip(self.masks, self.frames, strict=True)]


class MaskGenerator(nn.Module, ABC):
    """Finds masks in images.

    ``needs_ground_truth`` tells the test loader to read annotations beside the images;
    ``reads_features`` that ``from_config`` takes the generator's encoder as a second argument.
    """

    needs_ground_truth = False
    reads_features = False

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take note of the words that are asked for; generators that classify them override it."""

    @abstractmethod
    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        """Masks for a batch.

        Args:
            batched_inputs: one record per image, ``image`` [3, h, w] among them.
            encoded: what the generator's own encoder (VISUAL_ENCODER_F) makes of the images.
        """


def build_generator(cfg: CfgNode, encoder: VisualEncoder | None = None) -> MaskGenerator:
    """Build the generator that MODEL.MASKCLIPPP.SEGMENTOR names.

    Raises:
        ValueError: no such generator; or it reads feature maps and there is no ``encoder``.
    """
    name = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME
    key = "MODEL.MASKCLIPPP.SEGMENTOR.NAME"
    generator_class = get_part(SEGMENTOR_REGISTRY, name, key)
    if not generator_class.reads_features:
        generator: MaskGenerator = generator_class(cfg)
        return generator
    if encoder is None:
        raise ValueError(
            f"{key}: {name!r} decodes the feature maps of an encoder of its own, but "
            "MODEL.MASKCLIPPP.VISUAL_ENCODER_F.NAME is 'none'; use one of the configs that name "
            "the generator (configs/**/fcclip-*, maft-*, m2f-*)"
        )
    decoder: MaskGenerator = generator_class(cfg, encoder)
    return decoder
