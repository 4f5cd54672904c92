"""Evaluation of masks without a classifier: ground truth assigns the classes.

With ``MASKCLIPPP.TEST.SEGMENTOR_ONLY`` there are two answers to the question how good masks are:

- *one mask per segment*, as published: generated and true masks are matched one-to-one so that the
  total IoU is maximal (Hungarian method). Each matched mask takes the class of its ground truth;
  the other masks are dropped, and pixels without a mask count as class 0 in semantic evaluation.
  A segment that is cut in two therefore loses one half.
- *majority class*, semantic only: each mask takes the class of most of its pixels, so that only
  the masks can be wrong. It is the best that a classifier of these masks can reach, nearly.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BitMasks, Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.evaluation.base import ImageEvaluator, check_prediction_size, required
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator
from maskclippp.masks.label_maps import masks_of_labels
from maskclippp.masks.overlap import mask_iou
from maskclippp.records import ImageResult, Record, Segment

_ASSIGNMENT_SCALE = 0.25
_SWITCH = "MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY"


class AssignedMasksEvaluator(DatasetEvaluator):
    """Classifies class-agnostic masks by the ground truth and passes them to other evaluators.

    Outputs hold ``pred_masks``, boolean [N, H, W] at the original image size. Evaluators that are
    None are skipped. Images without semantic labels are skipped in the semantic evaluation.

    Args:
        semantic, panoptic, instance: score one mask per segment.
        majority: scores majority classes; its results are under ``sem_seg_majority``.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        *,
        semantic: SemanticEvaluator | None = None,
        panoptic: PanopticEvaluator | None = None,
        instance: InstanceEvaluator | None = None,
        majority: SemanticEvaluator | None = None,
    ) -> None:
        candidates = (semantic, panoptic, instance, majority)
        self._evaluators: list[ImageEvaluator[Any, Any]] = [
            evaluator for evaluator in candidates if evaluator is not None
        ]
        if not self._evaluators:
            raise InputError(
                f"{_SWITCH} needs SEMANTIC_ON, PANOPTIC_ON or INSTANCE_ON of MODEL.MASK_FORMER.TEST"
            )
        self._truth = ground_truth
        self._semantic = semantic
        self._panoptic = panoptic
        self._instance = instance
        self._majority = majority

    @property
    def parts(self) -> list[ImageEvaluator[Any, Any]]:
        """The evaluators that sum up images."""
        return self._evaluators

    def reset(self) -> None:
        """Start over."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Record], outputs: Sequence[ImageResult]) -> None:
        """Assign and score a batch."""
        for record, output in zip(inputs, outputs, strict=True):
            found = required(output, "pred_masks", record, _SWITCH)
            masks = torch.as_tensor(found).cpu().bool()
            if self._semantic is not None:
                labels = self._label_map(masks, record)
                if labels is not None:
                    self._semantic.process([record], [{"sem_seg_labels": labels}])
            if self._majority is not None:
                labels = self._majority_map(masks, record)
                self._majority.process([record], [{"sem_seg_labels": labels}])
            if self._panoptic is None and self._instance is None:
                continue
            segments = self._truth.segments_info(record)
            if self._panoptic is not None:
                assigned = self._assign_segments(masks, record, segments)
                self._panoptic.process([record], [paint_segments(*assigned)])
            if self._instance is not None:
                things = [segment for segment in segments if segment["isthing"]]
                assigned = self._assign_segments(masks, record, things)
                self._instance.process([record], [make_detections(*assigned)])

    def evaluate(self) -> dict[str, Any] | None:
        """Results of all evaluators; {} except on the main process."""
        results: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            found = evaluator.evaluate() or {}
            if evaluator is self._majority:
                found = {f"{task}_majority": metrics for task, metrics in found.items()}
            results.update(found)
        return results

    def _label_map(self, masks: Tensor, record: Record) -> Tensor | None:
        """Class ids [H, W]: the lowest class where masks overlap, class 0 where no mask is."""
        semantic = self._truth.semantic_labels(record)
        check_prediction_size(masks.shape, record, semantic.labels.shape, semantic.source)
        truth = torch.from_numpy(semantic.labels)
        classes = torch.unique(truth)
        classes = classes[classes < self._truth.num_classes]
        if not len(classes):
            return None
        labels = torch.zeros(truth.shape, dtype=torch.int32)
        pairs = zip(*assign(masks, truth, classes), strict=True)
        for index, position in sorted(pairs, key=lambda pair: -pair[1]):
            labels[masks[index]] = classes[position].to(labels.dtype)
        return labels

    def _majority_map(self, masks: Tensor, record: Record) -> Tensor:
        """Class ids [H, W]; small masks cover large ones, and what no mask covers is one mask."""
        semantic = self._truth.semantic_labels(record)
        check_prediction_size(masks.shape, record, semantic.labels.shape, semantic.source)
        regions = torch.zeros(semantic.labels.shape, dtype=torch.int64)
        for index in masks.flatten(1).sum(dim=1).argsort(descending=True, stable=True).tolist():
            regions[masks[index]] = index + 1
        return majority_labels(regions, torch.from_numpy(semantic.labels), self._truth.num_classes)

    def _assign_segments(
        self, masks: Tensor, record: Record, segments: Sequence[Segment]
    ) -> tuple[Tensor, list[Segment]]:
        """The assigned masks [n, H, W], and the ground-truth segment of each."""
        truth = torch.from_numpy(self._truth.panoptic_ids(record))
        check_prediction_size(masks.shape, record, truth.shape, self._truth.panoptic_file(record))
        ids = torch.tensor([segment["id"] for segment in segments], dtype=truth.dtype)
        predicted, true = assign(masks, truth, ids)
        return masks[predicted], [segments[position] for position in true]


def assign(masks: Tensor, truth: Tensor, values: Tensor) -> tuple[list[int], list[int]]:
    """One-to-one pairs (mask, value) of maximal total IoU, ordered by mask.

    Args:
        masks: bool [N, H, W].
        truth: label map [H, W].
        values: labels [n]; the pixels of each one form a ground-truth mask.
    """
    true_masks = masks_of_labels(truth, values)
    iou = mask_iou(masks, true_masks, _ASSIGNMENT_SCALE).numpy()
    predicted, true = linear_sum_assignment(iou, maximize=True)
    return predicted.tolist(), true.tolist()


def majority_labels(regions: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """int64 [H, W]: the class of most labeled pixels of each region; 0 without a labeled pixel.

    Args:
        regions: int64 [H, W], region numbers from 0.
        truth: classes [H, W]; ``num_classes`` for ignored pixels.
    """
    count = int(regions.max()) + 1
    pairs = regions.flatten() * (num_classes + 1) + truth.flatten().long()
    pixels = torch.bincount(pairs, minlength=count * (num_classes + 1))
    return pixels.view(count, num_classes + 1)[:, :num_classes].argmax(dim=1)[regions]


def paint_segments(masks: Tensor, segments: Sequence[Segment]) -> ImageResult:
    """A ``panoptic_seg`` output: later masks cover earlier ones; ids count from 1, 0 is void."""
    ids = torch.zeros(masks.shape[1:], dtype=torch.int32)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    visible = set(np.unique(ids.numpy()).tolist())
    listed: list[Segment] = [
        {"id": number, "category_id": segment["category_id"], "isthing": bool(segment["isthing"])}
        for number, segment in enumerate(segments, start=1)
        if number in visible
    ]
    return {"panoptic_seg": (ids, listed)}


def make_detections(masks: Tensor, segments: Sequence[Segment]) -> ImageResult:
    """An ``instances`` output of masks with score 1, classified by their segments."""
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.pred_masks = masks
    instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
    instances.scores = torch.ones(len(masks))
    instances.pred_classes = torch.tensor(
        [segment["category_id"] for segment in segments], dtype=torch.int64
    )
    return {"instances": instances}
