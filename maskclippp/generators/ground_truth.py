"""Ground-truth masks as a generator: results then measure the classification alone."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from torch import Tensor

from maskclippp.clip.visual_encoder import input_arguments
from maskclippp.errors import InputError
from maskclippp.generators.base import ImageMasks, MaskGenerator
from maskclippp.masks.batching import Resize, resize_bilinear
from maskclippp.masks.label_maps import masks_of_labels
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY


class AnnotatedMasks(MaskGenerator):
    """Masks of the annotation, at the input size of VISUAL_ENCODER_F if there is one.

    The published evaluation gives ground-truth masks the resolution that this config's generator
    would work at. Without an encoder (NAME "none") they stay as annotated.

    Args:
        resize: the test-time resizing of VISUAL_ENCODER_F; None keeps the masks as annotated.
    """

    needs_ground_truth = True

    def __init__(self, *, resize: Resize | None = None) -> None:
        super().__init__()
        self.resize = resize

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config."""
        node = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F
        if node.NAME == "none":
            return {}
        return {"resize": input_arguments(node)["input_format"].test_resize}

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`."""
        return [ImageMasks(SoftMasks(self._resized(record))) for record in records]

    def _resized(self, record: Record) -> Tensor:
        masks = self._masks(record)
        if self.resize is None:
            return masks
        # Only the size matters: nothing is computed on the meta device.
        image = self.resize(record["image"].to("meta", torch.float32))
        return resize_bilinear(masks.float(), (image.shape[-2], image.shape[-1]))

    @abstractmethod
    def _masks(self, record: Record) -> Tensor:
        """As annotated: bool [Q, h, w]."""


@SEGMENTOR_REGISTRY.register()
class GTSegmentor(AnnotatedMasks):
    """One mask per class in the image's label map ``sem_seg`` [h, w], in ascending label order.

    Args:
        ignore_label: label of pixels without a class, for records that do not have their own
            ``ignore_label``: several test sets may use different ones.
        resize: see :class:`AnnotatedMasks`.
    """

    @configurable
    def __init__(self, *, ignore_label: int = 255, resize: Resize | None = None) -> None:
        super().__init__(resize=resize)
        self.ignore_label = ignore_label

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config; the ignore label is that of the first test set."""
        arguments = super().from_config(cfg)
        for name in cfg.DATASETS.TEST[:1]:
            arguments["ignore_label"] = MetadataCatalog.get(name).get("ignore_label", 255)
        return arguments

    def _masks(self, record: Record) -> Tensor:
        labels = torch.as_tensor(_annotation(record, "sem_seg", type(self).__name__))
        present = labels.unique()
        present = present[present != record.get("ignore_label", self.ignore_label)]
        return masks_of_labels(labels, present)


@SEGMENTOR_REGISTRY.register()
class PanGTSegmentor(AnnotatedMasks):
    """One mask per annotated segment, crowd regions included, in the order of the annotation.

    Reads ``pan_seg`` [h, w] and ``segments_info``.
    """

    @configurable
    def __init__(self, *, resize: Resize | None = None) -> None:
        super().__init__(resize=resize)

    def _masks(self, record: Record) -> Tensor:
        ids = torch.as_tensor(_annotation(record, "pan_seg", type(self).__name__))
        segments = _annotation(record, "segments_info", type(self).__name__)
        return masks_of_labels(ids, torch.tensor([segment["id"] for segment in segments]).to(ids))


def _annotation(
    record: Record, key: Literal["sem_seg", "pan_seg", "segments_info"], owner: str
) -> Any:
    if key not in record:
        raise InputError(
            f"{owner} needs the annotation {key!r} of {record.get('file_name', 'the image')}, "
            f"but the record has only {sorted(record)}; evaluate on a dataset with such "
            "annotations or choose another SEGMENTOR.NAME"
        )
    return record[key]
