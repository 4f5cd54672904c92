"""Evaluators on detectron2's DatasetEvaluator interface. They know datasets, not models."""

from maskclippp.evaluation.assigned_masks import AssignedMasksEvaluator
from maskclippp.evaluation.build import build_evaluator
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.lvis import LVISEvaluator
from maskclippp.evaluation.mask_accuracy import MaskAccuracyEvaluator
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator

__all__ = [
    "AssignedMasksEvaluator",
    "GroundTruth",
    "InstanceEvaluator",
    "LVISEvaluator",
    "MaskAccuracyEvaluator",
    "PanopticEvaluator",
    "SemanticEvaluator",
    "build_evaluator",
]
