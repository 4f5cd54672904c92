"""The annotated masks themselves: what remains is classification alone."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from torch import Tensor

from maskclippp.clip.visual_encoder import EncodedImages
from maskclippp.errors import InputError
from maskclippp.generators.base import GeneratedMasks, MaskGenerator
from maskclippp.masks.batching import resize_bilinear
from maskclippp.registry import SEGMENTOR_REGISTRY


@SEGMENTOR_REGISTRY.register()
class GTSegmentor(MaskGenerator):
    """One mask per class in the image's label map, in ascending order of labels.

    Args:
        ignore_label: label of pixels that belong to no class, for records that do not say it
            themselves: several test sets may have several ignore labels.
    """

    needs_ground_truth = True

    @configurable
    def __init__(self, *, ignore_label: int = 255) -> None:
        super().__init__()
        self.ignore_label = ignore_label

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The ignore label is that of the first test set."""
        if not cfg.DATASETS.TEST:
            return {}
        metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        return {"ignore_label": metadata.get("ignore_label", 255)}

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        """See :class:`MaskGenerator`; reads ``sem_seg`` [h, w] and ``ignore_label``."""
        return _on_encoder_grid([self._masks(record) for record in batched_inputs], encoded)

    def _masks(self, record: dict[str, Any]) -> Tensor:
        labels = _annotation(record, "sem_seg", type(self).__name__)
        present = labels.unique()
        present = present[present != record.get("ignore_label", self.ignore_label)]
        return labels[None] == present[:, None, None]


@SEGMENTOR_REGISTRY.register()
class PanGTSegmentor(MaskGenerator):
    """One mask per annotated segment, crowd regions included, in the order of the annotation."""

    needs_ground_truth = True

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], encoded: EncodedImages | None
    ) -> GeneratedMasks:
        """See :class:`MaskGenerator`; reads ``pan_seg`` [h, w] and ``segments_info``."""
        return _on_encoder_grid([self._masks(record) for record in batched_inputs], encoded)

    def _masks(self, record: dict[str, Any]) -> Tensor:
        ids = _annotation(record, "pan_seg", type(self).__name__)
        wanted = torch.tensor([segment["id"] for segment in record["segments_info"]])
        return ids[None] == wanted.to(ids)[:, None, None]


def _on_encoder_grid(masks: list[Tensor], encoded: EncodedImages | None) -> GeneratedMasks:
    """Masks at the image size of the generator's encoder, where there is one.

    So the annotated masks take the resolution that this config's generator would work at, as in
    the published evaluation. Without VISUAL_ENCODER_F they stay as annotated.
    """
    if encoded is None:
        return GeneratedMasks(masks)
    sizes = encoded.batch.image_sizes
    return GeneratedMasks(
        [resize_bilinear(m.float(), size) for m, size in zip(masks, sizes, strict=True)]
    )


def _annotation(record: dict[str, Any], key: str, owner: str) -> Tensor:
    if key not in record:
        raise InputError(
            f"{owner} needs the annotation {key!r} of {record.get('file_name', 'the image')}, "
            f"but the record has only {sorted(record)}; evaluate on a dataset with such "
            "annotations or choose another SEGMENTOR.NAME"
        )
    annotation: Tensor = torch.as_tensor(record[key])
    return annotation
