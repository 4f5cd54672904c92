"""Which evaluators a dataset and a configuration ask for."""

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from maskclippp.errors import UnsupportedError
from maskclippp.evaluation.assigned_masks import AssignedMasksEvaluator
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.lvis import LVISEvaluator
from maskclippp.evaluation.mask_accuracy import MaskAccuracyEvaluator
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator
from maskclippp.evaluation.workers import worker_count

_SWITCHES = "MODEL.MASK_FORMER.TEST"
_SWITCHED_TASKS: dict[str, str | None] = {
    "semantic": "SEMANTIC_ON",
    "panoptic": "PANOPTIC_ON",
    "instance": "INSTANCE_ON",
}
# What each evaluator_type is judged by, and the switch that asks for it; None: always. The
# published protocol measures mIoU on ADE20K whatever SEMANTIC_ON says. Our mIoU and PQ are
# Cityscapes' own (IoU over labeled pixels, COCO's PQ); its AP is another measure than COCO's, and
# its scripts are not part of this package.
_TASKS: dict[str, dict[str, str | None]] = {
    "sem_seg": {"semantic": None},
    "coco": {"instance": None},
    "lvis": {"lvis": None},
    "coco_panoptic_seg": _SWITCHED_TASKS,
    "ade20k_panoptic_seg": {**_SWITCHED_TASKS, "semantic": None},
    "mapillary_vistas_panoptic_seg": _SWITCHED_TASKS,
    "cityscapes_panoptic_seg": {"semantic": "SEMANTIC_ON", "panoptic": "PANOPTIC_ON"},
}


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
        wanted = [task for task, switch in _SWITCHED_TASKS.items() if switches[switch]]
        # The boxes of assigned masks are the masks' own.
        parts = {task: _build_task(task, truth, folder, boxes=True) for task in wanted}
        return AssignedMasksEvaluator(truth, **parts)
    if cfg.MODEL.MASKCLIPPP.TEST.MASK_ACC:
        panoptic = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME == "PanGTSegmentor"
        return MaskAccuracyEvaluator(truth, folder, panoptic=panoptic)
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    tasks = _TASKS.get(kind, {})
    wanted = [task for task, switch in tasks.items() if switch is None or switches[switch]]
    if kind == "cityscapes_panoptic_seg" and switches.INSTANCE_ON:
        raise UnsupportedError(
            f"dataset {dataset_name}: instances of Cityscapes are judged by its own scripts, which "
            f"are no part of this package: set {_SWITCHES}.INSTANCE_ON False"
        )
    if not wanted:
        raise UnsupportedError(
            f"no evaluator for dataset {dataset_name} (evaluator_type {kind!r}) with "
            f"SEMANTIC_ON {switches.SEMANTIC_ON}, PANOPTIC_ON {switches.PANOPTIC_ON}, "
            f"INSTANCE_ON {switches.INSTANCE_ON}; known types: " + ", ".join(_TASKS)
        )
    boxes = switches.INSTANCE_BOX_ON
    evaluators = [_build_task(task, truth, folder, boxes=boxes) for task in wanted]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _build_task(task: str, truth: GroundTruth, folder: Path, *, boxes: bool) -> Any:
    """The evaluator of one task; ``boxes``: judge boxes beside the masks of instances."""
    workers = worker_count()
    if task == "semantic":
        return SemanticEvaluator(truth, folder, threads=workers)
    if task == "panoptic":
        return PanopticEvaluator(truth, folder, threads=workers)
    evaluator = LVISEvaluator if task == "lvis" else InstanceEvaluator
    iou_types = ("bbox", "segm") if boxes else ("segm",)
    return evaluator(truth, folder, iou_types=iou_types, workers=workers)
