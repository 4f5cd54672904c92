"""Which evaluators a dataset and a configuration ask for."""

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from maskclippp.evaluation.assigned_masks import AssignedMasksEvaluator
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.mask_accuracy import MaskAccuracyEvaluator
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator

_PANOPTIC_TYPES = ("coco_panoptic_seg", "ade20k_panoptic_seg", "mapillary_vistas_panoptic_seg")
# The published protocol measures mIoU on these whatever SEMANTIC_ON says.
_ALWAYS_SEMANTIC_TYPES = ("sem_seg", "ade20k_panoptic_seg")


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | Path | None = None
) -> DatasetEvaluator:
    """The evaluators for one dataset, by its ``evaluator_type`` and the configuration.

    ``output_folder`` None means ``OUTPUT_DIR/inference``. Mask quality
    (``MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY``) and mask accuracy (``MASK_ACC``) stand alone;
    otherwise the type decides together with ``SEMANTIC_ON``, ``PANOPTIC_ON``, ``INSTANCE_ON`` and
    ``INSTANCE_BOX_ON`` of ``MODEL.MASK_FORMER.TEST``.

    Raises NotImplementedError when nothing fits, naming dataset, type and switches.
    """
    folder = Path(cfg.OUTPUT_DIR) / "inference" if output_folder is None else Path(output_folder)
    truth = GroundTruth(dataset_name)
    switches = cfg.MODEL.MASK_FORMER.TEST
    if cfg.MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY:
        return AssignedMasksEvaluator(
            truth,
            semantic=SemanticEvaluator(truth, folder) if switches.SEMANTIC_ON else None,
            panoptic=PanopticEvaluator(truth, folder) if switches.PANOPTIC_ON else None,
            instance=InstanceEvaluator(truth, folder) if switches.INSTANCE_ON else None,
        )
    if cfg.MODEL.MASKCLIPPP.TEST.MASK_ACC:
        panoptic = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME == "PanGTSegmentor"
        return MaskAccuracyEvaluator(truth, folder, panoptic=panoptic)
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    evaluators: list[DatasetEvaluator] = []
    if kind in _ALWAYS_SEMANTIC_TYPES or (kind in _PANOPTIC_TYPES and switches.SEMANTIC_ON):
        evaluators.append(SemanticEvaluator(truth, folder))
    if kind in _PANOPTIC_TYPES and switches.PANOPTIC_ON:
        evaluators.append(PanopticEvaluator(truth, folder))
    if kind == "coco" or (kind in _PANOPTIC_TYPES and switches.INSTANCE_ON):
        iou_types = ("bbox", "segm") if switches.INSTANCE_BOX_ON else ("segm",)
        evaluators.append(InstanceEvaluator(truth, folder, iou_types=iou_types))
    if not evaluators:
        raise NotImplementedError(
            f"no evaluator for dataset {dataset_name} (evaluator_type {kind!r}) with "
            f"SEMANTIC_ON {switches.SEMANTIC_ON}, PANOPTIC_ON {switches.PANOPTIC_ON}, "
            f"INSTANCE_ON {switches.INSTANCE_ON}; known types: sem_seg, coco, "
            + ", ".join(_PANOPTIC_TYPES)
        )
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
