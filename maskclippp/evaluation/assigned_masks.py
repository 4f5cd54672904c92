"""How good are the masks alone? Generated masks get the class of the true mask that they fit best.

This measures a mask generator apart from any classifier (``MASKCLIPPP.TEST.SEGMENTOR_ONLY``): each
generated mask is assigned to at most one true mask, so that the total IoU is largest (Hungarian
method), takes its class, and the usual evaluators score the result.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BitMasks, Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.model_outputs import check_mask_size, required
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator
from maskclippp.masks.label_maps import masks_of_labels
from maskclippp.masks.overlap import mask_iou

_ASSIGNMENT_SCALE = 0.25


class AssignedMasksEvaluator(DatasetEvaluator):
    """Labels class-free masks through the ground truth and hands them to other evaluators.

    Outputs hold ``pred_masks``, boolean [N, H, W] at the original image size. An evaluator given as
    None is left out. Images without semantic ground truth are left out of the semantic part.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        *,
        semantic: SemanticEvaluator | None = None,
        panoptic: PanopticEvaluator | None = None,
        instance: InstanceEvaluator | None = None,
    ) -> None:
        if semantic is None and panoptic is None and instance is None:
            raise InputError(
                "MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY needs SEMANTIC_ON, PANOPTIC_ON or "
                "INSTANCE_ON of MODEL.MASK_FORMER.TEST"
            )
        self._truth = ground_truth
        self._semantic = semantic
        self._panoptic = panoptic
        self._instance = instance

    def reset(self) -> None:
        for evaluator in self._evaluators():
            evaluator.reset()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Assign and score one batch."""
        for image, output in zip(inputs, outputs, strict=True):
            found = required(
                output,
                "pred_masks",
                image["file_name"],
                "MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY",
            )
            masks = torch.as_tensor(found).cpu().bool()
            if self._semantic is not None:
                labels = self._label_map(masks, image["file_name"])
                if labels is not None:
                    self._semantic.process([image], [{"sem_seg_labels": labels}])
            if self._panoptic is not None:
                segments = self._truth.segments_info(image["file_name"])
                assigned = self._assign_segments(masks, image["file_name"], segments)
                self._panoptic.process([image], [paint_segments(*assigned)])
            if self._instance is not None:
                segments = self._truth.segments_info(image["file_name"])
                things = [segment for segment in segments if segment["isthing"]]
                assigned = self._assign_segments(masks, image["file_name"], things)
                self._instance.process([image], [make_detections(*assigned)])

    def evaluate(self) -> dict[str, Any] | None:
        results: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators():
            results.update(evaluator.evaluate() or {})
        return results

    def _evaluators(self) -> list[DatasetEvaluator]:
        candidates = (self._semantic, self._panoptic, self._instance)
        return [evaluator for evaluator in candidates if evaluator is not None]

    def _label_map(self, masks: Tensor, file_name: str) -> Tensor | None:
        """Class ids [H, W]: where masks overlap the lowest class wins, elsewhere it is class 0."""
        semantic = self._truth.semantic_labels(file_name)
        check_mask_size(masks, file_name, semantic.labels.shape, semantic.source)
        truth = torch.from_numpy(semantic.labels)
        classes = torch.unique(truth)
        classes = classes[classes < self._truth.num_classes]
        if not len(classes):
            return None
        labels = torch.zeros(truth.shape, dtype=torch.int32)
        predicted, true = assign(masks, masks_of_labels(truth, classes))
        for index, position in sorted(zip(predicted, true, strict=True), key=lambda pair: -pair[1]):
            labels[masks[index]] = classes[position].to(labels.dtype)
        return labels

    def _assign_segments(
        self, masks: Tensor, file_name: str, segments: Sequence[Mapping[str, Any]]
    ) -> tuple[Tensor, list[Mapping[str, Any]]]:
        """The assigned masks [n, H, W] and the true segments they were assigned to."""
        truth = torch.from_numpy(self._truth.panoptic_ids(file_name))
        panoptic_file = self._truth.record(file_name)["pan_seg_file_name"]
        check_mask_size(masks, file_name, truth.shape, panoptic_file)
        ids = torch.tensor([segment["id"] for segment in segments], dtype=truth.dtype)
        predicted, true = assign(masks, masks_of_labels(truth, ids))
        return masks[predicted], [segments[position] for position in true]


def assign(masks: Tensor, true_masks: Tensor) -> tuple[list[int], list[int]]:
    """One-to-one pairs (mask, true mask) of largest total IoU, by ascending mask."""
    iou = mask_iou(masks, true_masks, _ASSIGNMENT_SCALE).numpy()
    predicted, true = linear_sum_assignment(iou, maximize=True)
    return predicted.tolist(), true.tolist()


def paint_segments(masks: Tensor, segments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A ``panoptic_seg`` output: later masks cover earlier ones; ids count from 1, 0 is void."""
    ids = torch.zeros(masks.shape[1:], dtype=torch.int32)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    visible = set(np.unique(ids.numpy()).tolist())
    listed = [
        {"id": number, "category_id": segment["category_id"], "isthing": bool(segment["isthing"])}
        for number, segment in enumerate(segments, start=1)
        if number in visible
    ]
    return {"panoptic_seg": (ids, listed)}


def make_detections(masks: Tensor, segments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An ``instances`` output of masks assigned to true instances, each with score 1."""
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.pred_masks = masks
    instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
    instances.scores = torch.ones(len(masks))
    instances.pred_classes = torch.tensor(
        [segment["category_id"] for segment in segments], dtype=torch.int64
    )
    return {"instances": instances}
