"""The interface of mask generators."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detectron2.config import CfgNode
from torch import Tensor
from typing_extensions import override

from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY, Part, get_part
from maskclippp.words.vocabulary import Vocabulary

NAME_KEY = "MODEL.MASKCLIPPP.SEGMENTOR.NAME"


@dataclass(frozen=True)
class ImageMasks:
    """The masks found in one image.

    Attributes:
        masks: [Q, h, w], bool or probabilities in [0, 1], at any resolution; Q may be 0.
        logits: [Q, K + 1] with void last; None if the generator does not classify its masks.
        own_classes: the K classes of the logits, if they are those that the generator was trained
            on; None if they are the test vocabulary. Empty if they have no names: of the logits,
            only void is used.
        class_embeddings: [Q, D], what the logits were computed from, if they can be computed for
            other words: see :meth:`MaskGenerator.reclassify`.
    """

    masks: SoftMasks
    logits: Tensor | None = None
    own_classes: Vocabulary | None = None
    class_embeddings: Tensor | None = None


class MaskGenerator(Part):
    """Finds masks in images. Never trained here: :func:`build_generator` returns it frozen.

    If it needs an image encoder, it builds and owns one (config node VISUAL_ENCODER_F).

    ``needs_ground_truth`` makes the test loader read the annotations of the images.
    ``reads_mask_files`` says that the masks belong to the image as it is in its file, not to the
    resized, cropped and flipped image of a training step.
    ``finds_words`` says that the masks themselves are those of the test vocabulary.
    ``hub_model_types`` are the architectures of the transformers library that it can use.
    """

    needs_ground_truth = False
    reads_mask_files = False
    finds_words = False
    hub_model_types: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Raise what would prevent building the generator, before hours of training."""

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Set the test vocabulary; overridden by generators that classify into it."""

    def files_of(self, record: Record) -> Sequence[Path]:  # noqa: ARG002
        """The files, besides those that a record names, that the masks of an image are read from.

        A killed evaluation is not continued if one of them has changed.
        """
        return ()

    def reclassify(self, found: ImageMasks, vocabulary: Vocabulary) -> ImageMasks:  # noqa: ARG002
        """The masks of an image with logits for other words, which become the test vocabulary.

        Overridden with :meth:`set_vocabulary`; here the words make no difference.
        """
        return found

    @override
    def train(self, mode: bool = True) -> "MaskGenerator":
        """See ``nn.Module``; stays in evaluation mode."""
        return super().train(False)

    @abstractmethod
    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """Find the masks of a batch.

        Args:
            records: one per image, with ``image``; further keys as each generator says.
        """


def check_generator(cfg: CfgNode) -> type[MaskGenerator]:
    """The class that MODEL.MASKCLIPPP.SEGMENTOR names, after checking that it can be built.

    Raises:
        InputError: unknown name, or a setting that the generator cannot work with.
        MissingFileError: a file that the generator needs does not exist.
    """
    name = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME
    generator_class: type[MaskGenerator] = get_part(SEGMENTOR_REGISTRY, name, NAME_KEY)
    generator_class.check_config(cfg)
    return generator_class


def build_generator(cfg: CfgNode) -> MaskGenerator:
    """Build the generator that SEGMENTOR names, frozen and in evaluation mode, on MODEL.DEVICE.

    Raises:
        InputError, MissingFileError: see :func:`check_generator`; before any weights are read.
    """
    generator = check_generator(cfg)(cfg)
    return generator.requires_grad_(False).eval().to(cfg.MODEL.DEVICE)
