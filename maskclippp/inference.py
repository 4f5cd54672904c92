"""What is computed in evaluation, and the results of one image."""

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from maskclippp import postprocess
from maskclippp.soft_masks import SoftMasks

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class InferenceSettings:
    """What is computed in evaluation; names as in the config.

    Raises:
        ValueError: an unknown ``semantic_output`` or ``dtype``.
    """

    semantic_on: bool = True
    panoptic_on: bool = False
    instance_on: bool = False
    instance_box_on: bool = False
    object_mask_threshold: float = 0.0
    overlap_threshold: float = 0.0
    max_instances: int = 100
    ensemble_on: bool = False
    ensemble_alpha: float = 1.0
    ensemble_beta: float = 1.0
    mask_acc: bool = False
    segmentor_only: bool = False
    semantic_output: str = "labels"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.semantic_output not in ("labels", "scores"):
            raise ValueError(
                f"TEST.SEMANTIC_OUTPUT: {self.semantic_output!r} is not 'labels' or 'scores'"
            )
        if self.dtype not in _DTYPES:
            raise ValueError(f"TEST.DTYPE: {self.dtype!r} is not one of {sorted(_DTYPES)}")

    @property
    def autocast_dtype(self) -> torch.dtype:
        """The dtype of autocast in evaluation; float32 means off."""
        return _DTYPES[self.dtype]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "InferenceSettings":
        """Read the settings from the complete config."""
        masks, test = cfg.MODEL.MASK_FORMER.TEST, cfg.MODEL.MASKCLIPPP.TEST
        return cls(
            semantic_on=masks.SEMANTIC_ON,
            panoptic_on=masks.PANOPTIC_ON,
            instance_on=masks.INSTANCE_ON,
            instance_box_on=masks.INSTANCE_BOX_ON,
            object_mask_threshold=masks.OBJECT_MASK_THRESHOLD,
            overlap_threshold=masks.OVERLAP_THRESHOLD,
            max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
            ensemble_on=test.ENSEMBLE_ON,
            ensemble_alpha=test.GEOMETRIC_ENSEMBLE_ALPHA,
            ensemble_beta=test.GEOMETRIC_ENSEMBLE_BETA,
            mask_acc=test.MASK_ACC,
            segmentor_only=test.SEGMENTOR_ONLY,
            semantic_output=test.SEMANTIC_OUTPUT,
            dtype=test.DTYPE,
        )


def image_results(
    masks: SoftMasks,
    logits: Tensor,
    size: tuple[int, int],
    thing_classes: frozenset[int],
    num_classes: int,
    settings: InferenceSettings,
) -> dict[str, Any]:
    """The results that the settings ask for, by the names of ``MaskCLIPpp.forward``.

    They are computed in float32, also within autocast: half precision cannot tell classes of
    nearly equal score apart.

    Args:
        masks: Q masks of the image, at any resolution.
        logits: [Q, K] or [Q, K + 1] with void last.
        size: height and width of the results.
        thing_classes: classes that have instances.
        num_classes: K.
        settings: what to compute.
    """
    if settings.mask_acc:
        return {"mask_cls": postprocess.mask_classes(logits, num_classes)}
    with torch.autocast(logits.device.type, enabled=False):
        return _segmentations(masks, logits, size, thing_classes, num_classes, settings)


def _segmentations(
    masks: SoftMasks,
    logits: Tensor,
    size: tuple[int, int],
    thing_classes: frozenset[int],
    num_classes: int,
    settings: InferenceSettings,
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    arguments = (masks, logits, num_classes, size)
    if settings.semantic_on and settings.semantic_output == "scores":
        results["sem_seg"] = postprocess.semantic_scores(*arguments)
    elif settings.semantic_on:
        results["sem_seg_labels"] = postprocess.semantic_labels(*arguments)
    if settings.panoptic_on:
        panoptic = postprocess.PanopticSettings(
            settings.object_mask_threshold, settings.overlap_threshold, thing_classes
        )
        results["panoptic_seg"] = postprocess.panoptic_segmentation(*arguments, panoptic)
    if settings.instance_on:
        # With panoptic data the classes include stuff, which has no instances.
        classes = None
        if settings.panoptic_on:
            classes = torch.zeros(num_classes, dtype=torch.bool)
            classes[list(thing_classes)] = True
        instance = postprocess.InstanceSettings(
            settings.max_instances, settings.instance_box_on, classes
        )
        results["instances"] = postprocess.instance_segmentation(*arguments, instance)
    return results
