"""What is computed in evaluation, and the results of one image."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.inference import postprocess
from maskclippp.inference.class_logits import append_void, geometric_ensemble, train_to_test_logits
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import ImageResult

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class InferenceSettings:
    """What is computed in evaluation; names as in the config.

    ``pad_alone``: pad every image as if it were alone in its batch, so that results do not depend
    on the batch; published results of larger batches pad all images to a common size.

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
    pad_alone: bool = True

    def __post_init__(self) -> None:
        if self.semantic_output not in ("labels", "scores"):
            raise InputError(
                f"TEST.SEMANTIC_OUTPUT: {self.semantic_output!r} is not 'labels' or 'scores'"
            )
        if self.dtype not in _DTYPES:
            raise InputError(f"TEST.DTYPE: {self.dtype!r} is not one of {sorted(_DTYPES)}")

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which networks are evaluated."""
        dtype = _DTYPES[self.dtype]
        return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)

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
            pad_alone=test.PAD_ALONE,
        )


def combine_with_generator(
    logits: Tensor,
    generator_logits: Tensor,
    seen: Tensor,
    class_of_train_class: Tensor | None,
    settings: InferenceSettings,
) -> Tensor:
    """Ensemble with the generator's own classification, if asked for, and its void.

    Args:
        logits: [Q, K] of the mask classifier.
        generator_logits: [Q, K' + 1], void last.
        seen: bool [K].
        class_of_train_class: of a closed generator, int64 [K_train + 1] as of
            ``Vocabulary.class_of_train_class``; None: the generator is asked for the same words.
        settings: whether and how to combine.

    Returns:
        float32 [Q, K + 1].

    Raises:
        ValueError: a closed generator has another number of classes than the training set.
    """
    if not settings.ensemble_on:
        return append_void(logits, generator_logits)
    theirs = generator_logits[:, :-1]
    if class_of_train_class is not None:
        if len(class_of_train_class) != generator_logits.shape[1]:
            raise InputError(
                f"the generator classifies into {theirs.shape[1]} classes, those that it was "
                f"trained on, but DATASETS.TRAIN has {len(class_of_train_class) - 1}; name the "
                "generator's training set there, or set TEST.ENSEMBLE_ON False"
            )
        table = class_of_train_class.to(logits.device)
        theirs = train_to_test_logits(generator_logits, table, logits.shape[1])
    combined = geometric_ensemble(
        logits, theirs, seen.to(logits.device), settings.ensemble_alpha, settings.ensemble_beta
    )
    return append_void(combined, generator_logits)


@dataclass(frozen=True)
class ClassifiedMasks:
    """The masks of an image with their classes.

    Attributes:
        masks: Q masks, at any resolution.
        logits: [Q, K] or [Q, K + 1] with void last.
    """

    masks: SoftMasks
    logits: Tensor


def image_results(
    found: ClassifiedMasks,
    size: tuple[int, int],
    thing_classes: frozenset[int],
    num_classes: int,
    settings: InferenceSettings,
) -> ImageResult:
    """The results that the settings ask for, by the names of ``MaskCLIPpp.forward``.

    They are computed in float32, also within autocast: half precision cannot tell classes of
    nearly equal score apart.

    Args:
        found: the masks of the image and their classes.
        size: height and width of the results.
        thing_classes: classes that have instances.
        num_classes: K.
        settings: what to compute.
    """
    if settings.mask_acc:
        return {"mask_cls": postprocess.mask_classes(found.logits, num_classes)}
    with torch.autocast(found.logits.device.type, enabled=False):
        return _segmentations(found, size, thing_classes, num_classes, settings)


def _segmentations(
    found: ClassifiedMasks,
    size: tuple[int, int],
    thing_classes: frozenset[int],
    num_classes: int,
    settings: InferenceSettings,
) -> ImageResult:
    results: ImageResult = {}
    arguments = (found.masks, found.logits, num_classes, size)
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
