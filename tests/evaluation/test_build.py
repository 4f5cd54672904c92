"""Which evaluators a dataset and a configuration ask for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from maskclippp.config.keys import get_cfg
from maskclippp.evaluation import (
    AssignedMasksEvaluator,
    InstanceEvaluator,
    LVISEvaluator,
    MaskAccuracyEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
    build_evaluator,
)

NAME = "test_build_evaluator"
SWITCHES = "MODEL.MASK_FORMER.TEST."
ALL_ON = [f"{SWITCHES}{key}_ON" for key in ("SEMANTIC", "PANOPTIC", "INSTANCE")]


@pytest.fixture
def dataset_of_type() -> Iterator[Callable[[str], None]]:
    def register(evaluator_type: str) -> None:
        DatasetCatalog.register(NAME, list)
        MetadataCatalog.get(NAME).set(
            evaluator_type=evaluator_type, stuff_classes=["a", "b"], ignore_label=255
        )

    yield register
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def built(tmp_path: Path, *options: Any) -> list[type]:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.merge_from_list([f"{SWITCHES}SEMANTIC_ON", False, *options])
    evaluator = build_evaluator(cfg, NAME, tmp_path)
    parts = evaluator._evaluators if isinstance(evaluator, DatasetEvaluators) else [evaluator]
    return [type(part) for part in parts]


def on(*keys: str) -> list[Any]:
    return [item for key in keys for item in (key, True)]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("sem_seg", [], [SemanticEvaluator]),
        ("sem_seg", on(*ALL_ON), [SemanticEvaluator]),
        ("ade20k_panoptic_seg", [], [SemanticEvaluator]),
        ("coco", [], [InstanceEvaluator]),
        ("coco_panoptic_seg", on(ALL_ON[0]), [SemanticEvaluator]),
        ("coco_panoptic_seg", on(ALL_ON[1]), [PanopticEvaluator]),
        ("coco_panoptic_seg", on(ALL_ON[2]), [InstanceEvaluator]),
        (
            "coco_panoptic_seg",
            on(*ALL_ON),
            [SemanticEvaluator, PanopticEvaluator, InstanceEvaluator],
        ),
        (
            "mapillary_vistas_panoptic_seg",
            on(*ALL_ON),
            [SemanticEvaluator, PanopticEvaluator, InstanceEvaluator],
        ),
        ("cityscapes_panoptic_seg", on(*ALL_ON[:2]), [SemanticEvaluator, PanopticEvaluator]),
        ("lvis", [], [LVISEvaluator]),
        ("sem_seg", on("MODEL.MASKCLIPPP.TEST.MASK_ACC"), [MaskAccuracyEvaluator]),
        (
            "coco_panoptic_seg",
            on("MODEL.MASKCLIPPP.TEST.MASK_ACC", "MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY", *ALL_ON),
            [AssignedMasksEvaluator],
        ),
    ],
)
def test_type_and_switches_choose(
    kind: str,
    options: list[Any],
    expected: list[type],
    dataset_of_type: Callable[[str], None],
    tmp_path: Path,
) -> None:
    dataset_of_type(kind)
    assert built(tmp_path, *options) == expected


@pytest.mark.parametrize("kind", ["coco_panoptic_seg", "unheard_of"])
def test_nothing_to_evaluate_is_an_error(
    kind: str, dataset_of_type: Callable[[str], None], tmp_path: Path
) -> None:
    dataset_of_type(kind)
    with pytest.raises(NotImplementedError, match=f"{NAME}.*'{kind}'.*SEMANTIC_ON False"):
        built(tmp_path)


def test_instances_of_cityscapes_are_refused_with_the_remedy(
    dataset_of_type: Callable[[str], None], tmp_path: Path
) -> None:
    dataset_of_type("cityscapes_panoptic_seg")
    with pytest.raises(NotImplementedError, match=r"own scripts.*INSTANCE_ON False"):
        built(tmp_path, *on(*ALL_ON))


def test_boxes_of_assigned_masks_are_judged_too(
    dataset_of_type: Callable[[str], None], tmp_path: Path
) -> None:
    dataset_of_type("coco_panoptic_seg")
    cfg = get_cfg()
    cfg.merge_from_list(on(ALL_ON[2], "MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY"))
    evaluator = build_evaluator(cfg, NAME, tmp_path)
    assert evaluator._instance._iou_types == ("bbox", "segm")


def test_segmentor_only_needs_a_switch(
    dataset_of_type: Callable[[str], None], tmp_path: Path
) -> None:
    dataset_of_type("coco_panoptic_seg")
    with pytest.raises(ValueError, match="SEGMENTOR_ONLY needs"):
        built(tmp_path, "MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY", True)
