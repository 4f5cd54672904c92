"""Any "universal segmentation" model of the transformers library as a mask generator."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import nn

from maskclippp.generators.base import ImageMasks
from maskclippp.generators.hub_models import (
    HubGenerator,
    check_hub_model,
    load_image_processor,
    load_model,
)
from maskclippp.generators.transformers_masks import MODEL_TYPES, mask_reader
from maskclippp.masks.batching import call_by_size
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY
from maskclippp.words.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# The names that transformers gives to classes without names.
_NO_NAME = re.compile(r"LABEL_\d+")
# What only tells COCO's classes apart in their names, such as wall-other-merged.
_COCO_ENDING = re.compile(r"(-other|-stuff|-merged)+$")


@SEGMENTOR_REGISTRY.register()
class TransformersSegmentor(HubGenerator):
    """Mask2Former, MaskFormer, OneFormer, EoMT (DINOv2, DINOv3) or panoptic DETR.

    Images are prepared by the model's own processor, and masks are those that its post-processing
    forms segments from. Its classes are the model's labels.

    Args:
        model: of ``AutoModelForUniversalSegmentation``.
        processor: its ``AutoImageProcessor``.
        ensemble: whether its classification will be used, for a warning if it cannot be.
    """

    hub_model_types = MODEL_TYPES

    @configurable
    def __init__(self, *, model: nn.Module, processor: Any, ensemble: bool = False) -> None:
        super().__init__(model=model, processor=processor)
        config: Any = model.config
        self.reader = mask_reader(config, processor)
        self.classes = classes_of_labels(config.id2label)
        self.ensemble = ensemble
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config; loads the weights."""
        from transformers import AutoModelForUniversalSegmentation

        folder = check_hub_model(cfg.MODEL.MASKCLIPPP.SEGMENTOR, cls.hub_model_types)
        return {
            "model": load_model(AutoModelForUniversalSegmentation, folder),
            # A file of class names that OneFormer's processor would download; for training only.
            "processor": load_image_processor(folder, class_info_file=None),
            "ensemble": cfg.MODEL.MASKCLIPPP.TEST.ENSEMBLE_ON,
        }

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """See :class:`MaskGenerator`; warns if the ensemble has nothing to combine."""
        if vocabulary == self._vocabulary:
            return
        self._vocabulary = vocabulary
        if self.ensemble and not vocabulary.seen_in(self.classes).any():
            logger.warning(
                "TEST.ENSEMBLE_ON: none of the %d labels of the mask generator is a requested "
                "word, so that only its masks and their void probability are used",
                len(self.classes),
            )

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`; reads ``height`` and ``width``."""
        return call_by_size(self._forward, records)

    def _forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """Masks of images of one size."""
        inputs = self._inputs([record["image"] for record in records], **self.reader.options)
        outputs = self.model(**self.reader.model_inputs(inputs))
        found = self.reader.read(outputs, inputs, records)
        return [ImageMasks(masks, logits, self.classes) for masks, logits in found]


def classes_of_labels(id2label: Mapping[int, str]) -> Vocabulary:
    """The classes that a model's labels name, each with its synonyms; empty if they are numbers.

    Synonyms are separated by commas, as in "road, route". COCO's names also count without what
    tells them apart from others: "wall" for "wall-other-merged", "wood floor" for "floor-wood".
    """
    labels = [id2label[index] for index in sorted(id2label)]
    if all(_NO_NAME.fullmatch(label) for label in labels):
        return Vocabulary((), "labels without names")
    return Vocabulary(tuple(map(_synonyms, labels)), "the labels of the mask generator")


def _synonyms(label: str) -> tuple[str, ...]:
    found = [name.strip() for name in label.split(",") if name.strip()] or [label]
    for name in [*found]:
        plain = _COCO_ENDING.sub("", name)
        found += [plain, " ".join(reversed(plain.split("-")))]
    return tuple(dict.fromkeys(found))
