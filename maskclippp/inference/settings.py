"""The settings of evaluation."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode

from maskclippp.errors import InputError, check_choice

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class InferenceSettings:
    """Which results are computed, and how; the names are those of the config keys.

    Attributes:
        semantic_output: "labels" (the best class of every pixel) or "scores" (of every class).
        dtype: precision of the networks, by autocast.
        pad_alone: pad every image as if it were alone in its batch, so that its results do not
            depend on the other images. The published results pad all images to a common size.

    Raises:
        InputError: an unknown ``semantic_output`` or ``dtype``, or a ``clip_trust_weight`` outside
            of 0..1.
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
    clip_trust_weight: float = 0.0
    mask_acc: bool = False
    segmentor_only: bool = False
    semantic_output: str = "labels"
    dtype: str = "float32"
    pad_alone: bool = True

    def __post_init__(self) -> None:
        check_choice("TEST.SEMANTIC_OUTPUT:", self.semantic_output, ("labels", "scores"))
        check_choice("TEST.DTYPE:", self.dtype, _DTYPES)
        if not 0 <= self.clip_trust_weight <= 1:
            raise InputError(
                f"TEST.CLIP_TRUST_WEIGHT: expected a number from 0 to 1, found "
                f"{self.clip_trust_weight}"
            )

    @property
    def number_type(self) -> torch.dtype:
        """``dtype`` as PyTorch's."""
        return _DTYPES[self.dtype]

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision context for evaluating networks."""
        dtype = self.number_type
        return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "InferenceSettings":
        """The settings of a complete config."""
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
            clip_trust_weight=test.CLIP_TRUST_WEIGHT,
            mask_acc=test.MASK_ACC,
            segmentor_only=test.SEGMENTOR_ONLY,
            semantic_output=test.SEMANTIC_OUTPUT,
            dtype=test.DTYPE,
            pad_alone=test.PAD_ALONE,
        )
