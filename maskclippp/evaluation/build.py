"""Builds the evaluators of a dataset from a config."""

import logging
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm

from maskclippp.errors import UnsupportedError
from maskclippp.evaluation.assigned_masks import AssignedMasksEvaluator
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.instance import InstanceEvaluator
from maskclippp.evaluation.lvis import LVISEvaluator
from maskclippp.evaluation.mask_accuracy import MaskAccuracyEvaluator
from maskclippp.evaluation.panoptic import PanopticEvaluator
from maskclippp.evaluation.semantic import SemanticEvaluator
from maskclippp.evaluation.workers import worker_count
from maskclippp.words.requested import RequestedWords
from maskclippp.words.sources import training_vocabulary

_LOGGER = logging.getLogger(__name__)
_SWITCHES = "MODEL.MASK_FORMER.TEST"
_SWITCHED_TASKS: dict[str, str | None] = {
    "semantic": "SEMANTIC_ON",
    "panoptic": "PANOPTIC_ON",
    "instance": "INSTANCE_ON",
}
# The tasks of each evaluator_type, and the switch that turns each on; None: always on. The
# published protocol measures mIoU on ADE20K whatever SEMANTIC_ON says. Our mIoU and PQ are those
# of Cityscapes (IoU over labeled pixels, COCO's PQ); its AP differs from COCO's, and the scripts
# that compute it are not part of this package.
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
    """The evaluators of a dataset, chosen by its ``evaluator_type`` and the config.

    With ``MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY`` or ``MASK_ACC``, only masks or only mask accuracy
    are evaluated. Otherwise the type decides together with ``SEMANTIC_ON``, ``PANOPTIC_ON``,
    ``INSTANCE_ON``, and ``INSTANCE_BOX_ON`` of ``MODEL.MASK_FORMER.TEST``.
    ``$MASKCLIPPP_EVALUATION_WORKERS`` is the number of threads that score images while the model
    runs.

    Args:
        output_folder: folder for result files; None: ``OUTPUT_DIR/inference``.

    Raises:
        UnsupportedError: no evaluator fits; names dataset, type, and switches.
    """
    folder = Path(cfg.OUTPUT_DIR) / "inference" if output_folder is None else Path(output_folder)
    truth = GroundTruth(dataset_name)
    switches = cfg.MODEL.MASK_FORMER.TEST
    if cfg.MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY:
        wanted = [task for task, switch in _SWITCHED_TASKS.items() if switches[switch]]
        # The boxes of assigned masks are the masks' own.
        # Nothing is classified: it does not matter which classes training has seen.
        words = _requested_words(cfg, dataset_name)
        parts = {
            task: _build_task(task, truth, folder, words, boxes=True, by_seen=False)
            for task in wanted
        }
        if "semantic" in parts:
            # Without files: they would replace those of the other semantic evaluator.
            parts["majority"] = SemanticEvaluator(truth, words=words, by_seen=False)
        return AssignedMasksEvaluator(truth, **parts)
    if cfg.MODEL.MASKCLIPPP.TEST.MASK_ACC:
        panoptic = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME == "PanGTSegmentor"
        words, threads = _requested_words(cfg, dataset_name), worker_count()
        return MaskAccuracyEvaluator(truth, folder, panoptic=panoptic, words=words, threads=threads)
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    tasks = _TASKS.get(kind, {})
    wanted = [task for task, switch in tasks.items() if switch is None or switches[switch]]
    if kind == "cityscapes_panoptic_seg" and switches.INSTANCE_ON:
        raise UnsupportedError(
            f"dataset {dataset_name}: instances of Cityscapes are evaluated by its own scripts, "
            f"which are not part of this package: set {_SWITCHES}.INSTANCE_ON False"
        )
    if kind == "images":
        raise UnsupportedError(
            f"dataset {dataset_name} has no annotation (kind images): nothing can be scored; "
            "DATASETS.TEST needs annotated datasets, and predictions for images alone are made by "
            "maskclippp.Predictor or tools/save_masks.py"
        )
    if not wanted:
        raise UnsupportedError(
            f"no evaluator for dataset {dataset_name} (evaluator_type {kind!r}) with "
            f"SEMANTIC_ON {switches.SEMANTIC_ON}, PANOPTIC_ON {switches.PANOPTIC_ON}, "
            f"INSTANCE_ON {switches.INSTANCE_ON}; known types: " + ", ".join(_TASKS)
        )
    words, boxes = _requested_words(cfg, dataset_name), switches.INSTANCE_BOX_ON
    evaluators = [_build_task(task, truth, folder, words, boxes=boxes) for task in wanted]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _requested_words(cfg: CfgNode, dataset_name: str) -> RequestedWords:
    """The test and training vocabularies of the config, as the model has them."""
    selection = cfg.DATASETS.VOCABULARY
    train = training_vocabulary(cfg.DATASETS.TRAIN, selection)
    return RequestedWords.of_dataset(dataset_name, selection, train)


def _build_task(
    task: str,
    truth: GroundTruth,
    folder: Path,
    words: RequestedWords,
    *,
    boxes: bool,
    by_seen: bool = True,
) -> Any:
    """The evaluator of one task; ``boxes``: evaluate boxes of instances in addition to masks."""
    threads = worker_count()
    if task == "semantic":
        return SemanticEvaluator(truth, folder, words=words, by_seen=by_seen, threads=threads)
    if task == "panoptic":
        return PanopticEvaluator(truth, folder, words=words, by_seen=by_seen, threads=threads)
    evaluator = LVISEvaluator if task == "lvis" else InstanceEvaluator
    iou_types = ("bbox", "segm") if boxes else ("segm",)
    if not boxes and comm.is_main_process():
        _LOGGER.info(
            "AP of masks only: the model computes no boxes; %s.INSTANCE_BOX_ON True adds their AP",
            _SWITCHES,
        )
    return evaluator(truth, folder, iou_types=iou_types, words=words, threads=threads)
