"""The interface of mask generators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detectron2.config import CfgNode
from torch import Tensor, nn

from maskclippp.clip.visual_encoder import EncodedImages, VisualEncoder
from maskclippp.errors import InputError
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.registry import SEGMENTOR_REGISTRY, get_part
from maskclippp.words.vocabulary import Vocabulary

_NAME_KEY = "MODEL.MASKCLIPPP.SEGMENTOR.NAME"


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

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Raise what would keep the generator from being built, before hours of training."""

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take note of the words that are asked for; generators that classify them override it."""

    @abstractmethod
    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        """Masks for a batch.

        Args:
            batched_inputs: one record per image, ``image`` [3, h, w] among them.
            encoded: what the generator's own encoder (VISUAL_ENCODER_F) makes of the images;
                without ``reads_features`` only the padded batch; None without an encoder.
        """


def check_generator(cfg: CfgNode) -> None:
    """Check what MODEL.MASKCLIPPP.SEGMENTOR and VISUAL_ENCODER_F name, without building it.

    Raises:
        ValueError: no such generator; or it reads feature maps and has no encoder.
        FileNotFoundError: a file that it needs is not there.
    """
    node = cfg.MODEL.MASKCLIPPP
    generator_class = find_generator(cfg)
    if generator_class.reads_features and node.VISUAL_ENCODER_F.NAME == "none":
        raise InputError(
            f"{_NAME_KEY}: {node.SEGMENTOR.NAME!r} decodes the feature maps of an encoder of its "
            "own, but MODEL.MASKCLIPPP.VISUAL_ENCODER_F.NAME is 'none'; use a config of a "
            "generator (configs/**/fcclip-*, maft-*, m2f-*), another SEGMENTOR.NAME such as "
            "GTSegmentor, or no DATASETS.TEST"
        )
    generator_class.check_config(cfg)


def build_generator(cfg: CfgNode, encoder: VisualEncoder | None = None) -> MaskGenerator:
    """Build the generator that MODEL.MASKCLIPPP.SEGMENTOR names, for the maps of ``encoder``.

    Raises:
        ValueError, FileNotFoundError: see :func:`check_generator`.
    """
    check_generator(cfg)
    generator_class = find_generator(cfg)
    arguments = (cfg, encoder) if generator_class.reads_features else (cfg,)
    generator: MaskGenerator = generator_class(*arguments)
    return generator


def find_generator(cfg: CfgNode) -> type[MaskGenerator]:
    """The class that MODEL.MASKCLIPPP.SEGMENTOR names; a ValueError lists the valid names."""
    name = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME
    found: type[MaskGenerator] = get_part(SEGMENTOR_REGISTRY, name, _NAME_KEY)
    return found
