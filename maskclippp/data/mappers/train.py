"""The train mappers, each an augmentation and a target, by name for INPUT.DATASET_MAPPER_NAME."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.registry import Registry

from maskclippp.data.mappers.augmentation import (
    Augmentation,
    Augmented,
    LargeScaleJitterAugmentation,
    ShortestEdgeAugmentation,
)
from maskclippp.data.mappers.images import read_record_image
from maskclippp.data.mappers.objects import ObjectTarget
from maskclippp.data.mappers.targets import (
    Annotation,
    ClassRules,
    ClassTarget,
    SegmentTarget,
    Target,
)
from maskclippp.records import Record
from maskclippp.registry import get_part

Mapper = Callable[[Record], Record]
TRAIN_MAPPER_REGISTRY = Registry("TRAIN_MAPPER")
"""Factories ``(cfg) -> mapper``."""


class TrainMapper:
    """Maps a dataset record to a training input with only what the model reads.

    Its keys are ``file_name`` and ``image_id`` (if any) of the record, ``height`` and ``width`` of
    the original image, ``image`` (uint8 [3, h, w], augmented) and ``instances`` (``gt_classes``
    int64 [n], ``gt_masks`` bool [n, h, w]).
    """

    def __init__(self, augmentation: Augmentation, target: Target) -> None:
        self.augmentation = augmentation
        self.target = target

    def __call__(self, record: Record) -> Record:
        annotation, augmented = self.augment(record)
        classes, masks = annotation.instances(augmented)
        instances = Instances((masks.shape[1], masks.shape[2]))
        instances.gt_classes, instances.gt_masks = classes, masks
        height, width = annotation.size
        out: Record = {"file_name": record["file_name"], "height": height, "width": width}
        if "image_id" in record:
            out["image_id"] = record["image_id"]
        out["image"], out["instances"] = augmented.image, instances
        return out

    def augment(self, record: Record) -> tuple[Annotation, Augmented]:
        """The annotation as read, and the augmented image and annotation."""
        image = read_record_image(record)
        annotation = self.target(record, (image.height, image.width))
        return annotation, self.augmentation(image, *annotation.parts)


def build_train_mapper(cfg: CfgNode) -> Mapper:
    """The train mapper that the config names; an InputError lists the valid names."""
    name = cfg.INPUT.DATASET_MAPPER_NAME
    mapper: Mapper = get_part(TRAIN_MAPPER_REGISTRY, name, "INPUT.DATASET_MAPPER_NAME")(cfg)
    return mapper


@TRAIN_MAPPER_REGISTRY.register()
def coco_panoptic_lsj(cfg: CfgNode) -> TrainMapper:
    """Large-scale jitter, panoptic annotation: the mapper of the COCO panoptic configs."""
    return TrainMapper(LargeScaleJitterAugmentation.from_config(cfg), SegmentTarget())


@TRAIN_MAPPER_REGISTRY.register()
def coco_instance_lsj(cfg: CfgNode) -> TrainMapper:
    """Large-scale jitter, instance annotation, without objects that the crop removes completely.

    Unlike the published mapper, it also accepts run-length codes and changes colors on request.
    """
    return TrainMapper(LargeScaleJitterAugmentation.from_config(cfg), ObjectTarget(drop_empty=True))


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_semantic(cfg: CfgNode) -> TrainMapper:
    """Resize, crop, flip; semantic annotation: the mapper of the COCO-Stuff configs."""
    rules = ClassRules.from_config(cfg)
    augmentation = ShortestEdgeAugmentation.from_config(cfg, rules.ignore_label)
    return TrainMapper(augmentation, ClassTarget(rules))


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_panoptic(cfg: CfgNode) -> TrainMapper:
    """Resize, crop, flip; panoptic annotation. Crops may have a category limit.

    As published, class ids are resized at pixel corners and segments at pixel centers, so that
    their borders may differ by a pixel.
    """
    rules = ClassRules.from_config(cfg)
    augmentation = ShortestEdgeAugmentation.from_config(cfg, rules.ignore_label)
    return TrainMapper(augmentation, SegmentTarget(rules))


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_instance(cfg: CfgNode) -> TrainMapper:
    """Resize, crop, flip; instance annotation, including objects that the crop removes."""
    return TrainMapper(ShortestEdgeAugmentation.from_config(cfg), ObjectTarget(drop_empty=False))
