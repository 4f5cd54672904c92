"""Which evaluators a dataset and a configuration ask for."""

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from maskclippp.evaluation.assigned_masks import AssignedMasksEvaluator
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.lvis import LVISEvaluator
from maskclippp.evaluation.mask_accuracy import MaskAccuracyEvaluator
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator
from maskclippp.evaluation.workers import worker_count

_SWITCHES = "MODEL.MASK_FORMER.TEST"
# What each evaluator_type is judged by, and the switch that asks for it; None: always. The
# published protocol measures mIoU on ADE20K whatever SEMANTIC_ON says.
_TASKS: dict[str, dict[str, str | None]] = {
    "sem_seg": {"semantic": None},
    "coco": {"instance": None},
    "lvis": {"lvis": None},
    "coco_panoptic_seg": {
        "semantic": "SEMANTIC_ON",
        "panoptic": "PANOPTIC_ON",
        "instance": "INSTANCE_ON",
    },
}
_TASKS["ade20k_panoptic_seg"] = {**_TASKS["coco_panoptic_seg"], "semantic": None}
_TASKS["mapillary_vistas_panoptic_seg"] = _TASKS["coco_panoptic_seg"]
# Our mIoU and PQ are Cityscapes' own (class IoU over labelled pixels, COCO's PQ); its AP is another
# measure than COCO's, and its scripts are not part of this package.
_TASKS["cityscapes_panoptic_seg"] = {"semantic": "SEMANTIC_ON", "panoptic": "PANOPTIC_ON"}


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | Path | None = None
) -> DatasetEvaluator:
    """The evaluators for one dataset, by its ``evaluator_type`` and the configuration.

    ``output_folder`` None means ``OUTPUT_DIR/inference``. Mask quality
    (``MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY``) and mask accuracy (``MASK_ACC``) stand alone;
    otherwise the type decides together with ``SEMANTIC_ON``, ``PANOPTIC_ON``, ``INSTANCE_ON`` and
    ``INSTANCE_BOX_ON`` of ``MODEL.MASK_FORMER.TEST``. ``$MASKCLIPPP_EVALUATION_WORKERS`` says how
    many threads score images beside the model.

    Raises NotImplementedError when nothing fits, naming dataset, type and switches.
    """
    folder = Path(cfg.OUTPUT_DIR) / "inference" if output_folder is None else Path(output_folder)
    truth = GroundTruth(dataset_name)
    switches = cfg.MODEL.MASK_FORMER.TEST
    if cfg.MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY:
        return AssignedMasksEvaluator(
            truth,
            semantic=_build_task("semantic", cfg, truth, folder) if switches.SEMANTIC_ON else None,
            panoptic=_build_task("panoptic", cfg, truth, folder) if switches.PANOPTIC_ON else None,
            instance=_build_task("instance", cfg, truth, folder) if switches.INSTANCE_ON else None,
        )
    if cfg.MODEL.MASKCLIPPP.TEST.MASK_ACC:
        panoptic = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME == "PanGTSegmentor"
        return MaskAccuracyEvaluator(truth, folder, panoptic=panoptic)
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    tasks = _TASKS.get(kind, {})
    wanted = [task for task, switch in tasks.items() if switch is None or switches[switch]]
    if kind == "cityscapes_panoptic_seg" and switches.INSTANCE_ON:
        raise NotImplementedError(
            f"dataset {dataset_name}: instances of Cityscapes are judged by its own scripts, which "
            f"are no part of this package: set {_SWITCHES}.INSTANCE_ON False"
        )
    if not wanted:
        raise NotImplementedError(
            f"no evaluator for dataset {dataset_name} (evaluator_type {kind!r}) with "
            f"SEMANTIC_ON {switches.SEMANTIC_ON}, PANOPTIC_ON {switches.PANOPTIC_ON}, "
            f"INSTANCE_ON {switches.INSTANCE_ON}; known types: " + ", ".join(_TASKS)
        )
    evaluators = [_build_task(task, cfg, truth, folder) for task in wanted]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _build_task(task: str, cfg: CfgNode, truth: GroundTruth, folder: Path) -> Any:
    """The evaluator of one task."""
    workers = worker_count()
    if task == "semantic":
        return SemanticEvaluator(truth, folder, threads=workers)
    if task == "panoptic":
        return PanopticEvaluator(truth, folder, threads=workers)
    boxes = cfg.MODEL.MASK_FORMER.TEST.INSTANCE_BOX_ON
    kind = LVISEvaluator if task == "lvis" else InstanceEvaluator
    return kind(truth, folder, iou_types=("bbox", "segm") if boxes else ("segm",), workers=workers)
