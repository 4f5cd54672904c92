"""The interface of mask generators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detectron2.config import CfgNode
from torch import Tensor, nn

from maskclippp.clip.visual_encoder import EncodedImages
from maskclippp.registry import SEGMENTOR_REGISTRY, get_part


@dataclass(frozen=True)
class GeneratedMasks:
    """Masks of B images.

    Attributes:
        masks: per image [Q, h, w]; bool, or probabilities in [0, 1]. A mask spans exactly the
            input image, at any resolution. Q may be 0 and may differ between images.
        logits: per image [Q, K + 1] with void last, or None when the generator does not classify.
        classifier: whether the logits are over the test classes ("open") or over the generator's
            own training classes ("closed").
    """

    masks: list[Tensor]
    logits: list[Tensor] | None = None
    classifier: Literal["open", "closed"] | None = None


class MaskGenerator(nn.Module, ABC):
    """Finds masks in images.

    ``needs_ground_truth`` tells the test loader to read annotations beside the images.
    """

    needs_ground_truth = False

    @abstractmethod
    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        """Masks for a batch.

        Args:
            batched_inputs: one record per image, ``image`` [3, h, w] among them.
            encoded: what the generator's own encoder (VISUAL_ENCODER_F) makes of the images.
        """


def build_generator(cfg: CfgNode) -> MaskGenerator:
    """Build the generator that MODEL.MASKCLIPPP.SEGMENTOR names."""
    name = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME
    key = "MODEL.MASKCLIPPP.SEGMENTOR.NAME"
    generator: MaskGenerator = get_part(SEGMENTOR_REGISTRY, name, key)(cfg)
    return generator
