"""The registered datasets: names, layouts, metadata; mappers and evaluators that work on them."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.config.keys import get_cfg
from maskclippp.data.builtin import DATASETS
from maskclippp.data.instances import InstanceDataset
from maskclippp.data.mappers import EvaluationMapper, build_train_mapper
from maskclippp.data.panoptic import PanopticDataset
from maskclippp.data.semantic import SemanticDataset
from maskclippp.evaluation import GroundTruth, PanopticEvaluator, build_evaluator
from maskclippp.files.images import read_panoptic_ids
from tests.data.registered_layouts import (
    HEIGHT,
    INSTANCES,
    PANOPTIC,
    SEMANTIC,
    WIDTH,
    make_instances,
    make_panoptic,
    make_semantic,
)
from tests.golden_cases import REPOSITORY

NAMES = [*PANOPTIC, *SEMANTIC, *INSTANCES]
PANOPTIC_OF = {d.name: d for d in DATASETS.values() if isinstance(d, PanopticDataset)}
SEMANTIC_OF = {d.name: d for d in DATASETS.values() if isinstance(d, SemanticDataset)}
INSTANCES_OF = {d.name: d for d in DATASETS.values() if isinstance(d, InstanceDataset)}


@pytest.fixture
def own_name() -> Iterator[str]:
    """A name for a dataset to register, for the time of a test."""
    name = "registration_for_tests"
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def panoptic_categories(name: str, shift: int = 0) -> list[dict[str, Any]]:
    classes = PANOPTIC_OF[name].classes
    return [
        {"id": category + shift, "name": f"name {category}", "isthing": int(is_thing)}
        for category, is_thing in zip(classes.ids, classes.is_thing, strict=True)
    ]


def panoptic_records(name: str, root: Path) -> list[dict[str, Any]]:
    make_panoptic(root, PANOPTIC[name], panoptic_categories(name))
    return PANOPTIC_OF[name].load(root)


def instance_records(name: str, root: Path) -> list[dict[str, Any]]:
    ids = INSTANCES_OF[name].classes.ids
    make_instances(root, INSTANCES[name], ids)
    return INSTANCES_OF[name].load(root)


def train_mapper(name: str, mapper: str) -> Any:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (name,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    cfg.INPUT.IMAGE_SIZE = 32
    cfg.INPUT.MIN_SIZE_TRAIN = [24]
    return build_train_mapper(cfg)


def test_mapper(ignore_label: int) -> EvaluationMapper:
    return EvaluationMapper(
        min_size=0,
        max_size=100,
        with_ground_truth=True,
        ignore_label=ignore_label,
    )


test_mapper.__test__ = False  # type: ignore[attr-defined]


def test_every_published_name_is_registered() -> None:
    assert len(NAMES) == 26
    assert {name for name in DatasetCatalog.list() if name.startswith("openvocab_")} == set(NAMES)
    for split in ("train", "val"):
        metadata = MetadataCatalog.get(f"openvocab_coco_2017_{split}_panoptic")
        assert len(metadata.thing_classes) == len(metadata.thing_colors) == 80


@pytest.mark.parametrize("name", SEMANTIC)
def test_semantic_dataset(name: str, tmp_path: Path) -> None:
    layout = SEMANTIC[name]
    labels = make_semantic(tmp_path, layout)
    (record,) = SEMANTIC_OF[name].load(tmp_path)
    assert record == {
        "file_name": str(tmp_path / layout.image),
        "sem_seg_file_name": str(tmp_path / layout.labels),
    }
    metadata = MetadataCatalog.get(name)
    assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == layout.num_classes
    first = 1 if "pascal20" in name else 0
    ids = {first + index: index for index in range(layout.num_classes)}
    assert metadata.stuff_dataset_id_to_contiguous_id == ids
    assert metadata.thing_dataset_id_to_contiguous_id == {}
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.ignore_label == layout.ignore_label
    mapped = test_mapper(layout.ignore_label)(record)
    np.testing.assert_array_equal(mapped["sem_seg"], labels.astype(np.int64))
    trained = train_mapper(name, "mask_former_semantic")(record)
    found = set(trained["instances"].gt_classes.tolist())
    assert found <= {0, layout.num_classes - 1}
    assert trained["instances"].gt_masks.shape[0] == len(found) > 0


@pytest.mark.parametrize("name", PANOPTIC)
def test_panoptic_dataset(name: str, tmp_path: Path) -> None:
    layout = PANOPTIC[name]
    (record,) = panoptic_records(name, tmp_path)
    assert record["file_name"] == str(tmp_path / layout.image)
    assert record["pan_seg_file_name"] == str(tmp_path / layout.panoptic)
    assert record["sem_seg_file_name"] == str(tmp_path / layout.semantic)
    assert record["image_id"] == layout.image_id
    assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
    last = layout.num_classes - 1
    assert [segment["category_id"] for segment in record["segments_info"]] == [0, last]
    mapped = test_mapper(layout.ignore_label)(record)
    assert set(mapped["sem_seg"].unique().tolist()) == {0, last, layout.ignore_label}
    assert set(mapped["pan_seg"].unique().tolist()) == {0, 263, 131_081}
    trained = train_mapper(name, "coco_panoptic_lsj")(record)
    assert trained["instances"].gt_classes.tolist() == [0, last]


@pytest.mark.parametrize("name", PANOPTIC)
def test_panoptic_metadata(name: str) -> None:
    layout = PANOPTIC[name]
    metadata = MetadataCatalog.get(name)
    assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == layout.num_classes
    assert len(metadata.thing_classes) == len(metadata.thing_colors) == layout.num_things
    positions = metadata.stuff_dataset_id_to_contiguous_id
    assert sorted(positions.values()) == list(range(layout.num_classes))
    things = metadata.thing_dataset_id_to_contiguous_id
    names = {
        positions[identity]: metadata.stuff_classes[positions[identity]] for identity in things
    }
    assert list(names.values()) == metadata.thing_classes
    assert things.items() <= positions.items()
    assert metadata.evaluator_type == layout.evaluator_type
    assert metadata.ignore_label == layout.ignore_label


@pytest.mark.parametrize("name", INSTANCES)
def test_instance_dataset(name: str, tmp_path: Path) -> None:
    """It loads although the JSON names its categories otherwise than our list of classes."""
    layout = INSTANCES[name]
    (record,) = instance_records(name, tmp_path)
    assert record["file_name"] == str(tmp_path / layout.image)
    assert (record["image_id"], record["height"], record["width"]) == (12, HEIGHT, WIDTH)
    found = [(a["category_id"], a["iscrowd"], a["bbox"]) for a in record["annotations"]]
    last = layout.num_classes - 1
    assert found == [(0, 0, [4, 5, 10, 8]), (last, 1, [10, 0, 5, HEIGHT])]
    assert ("neg_category_ids" in record) or layout.evaluator_type == "coco"
    metadata = MetadataCatalog.get(name)
    assert len(metadata.thing_classes) == len(metadata.thing_colors) == layout.num_classes
    positions = metadata.thing_dataset_id_to_contiguous_id
    assert sorted(positions.values()) == list(range(layout.num_classes))
    assert metadata.evaluator_type == layout.evaluator_type
    trained = train_mapper(name, "coco_instance_lsj")(record)
    assert set(trained["instances"].gt_classes.tolist()) <= {0}


@pytest.mark.parametrize("name", NAMES)
def test_evaluators(name: str, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = True
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    assert build_evaluator(cfg, name, tmp_path) is not None


@pytest.mark.parametrize("shift", [0, -1])
def test_mapillary_categories_may_count_from_one_or_zero(shift: int, tmp_path: Path) -> None:
    name = "openvocab_mapillary_vistas_panoptic_val"
    make_panoptic(tmp_path, PANOPTIC[name], panoptic_categories(name, shift))
    (record,) = PANOPTIC_OF[name].load(tmp_path)
    assert [segment["category_id"] for segment in record["segments_info"]] == [0, 64]


@pytest.mark.parametrize("shift", [0, -1])
def test_panoptic_quality_holds_wherever_categories_count_from(
    shift: int, own_name: str, tmp_path: Path
) -> None:
    name = "openvocab_mapillary_vistas_panoptic_val"
    make_panoptic(tmp_path, PANOPTIC[name], panoptic_categories(name, shift))
    dataclasses.replace(PANOPTIC_OF[name], name=own_name).register(tmp_path)
    (record,) = DatasetCatalog.get(own_name)
    evaluator = PanopticEvaluator(GroundTruth(own_name), tmp_path)
    ids = torch.from_numpy(read_panoptic_ids(record["pan_seg_file_name"]))
    evaluator.process([record], [{"panoptic_seg": (ids, record["segments_info"])}])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == 100
    (prediction,) = json.loads((tmp_path / "predictions.json").read_text())["annotations"]
    found = [segment["category_id"] for segment in prediction["segments_info"]]
    assert found == [1 + shift, 65 + shift]


def test_coco_stuff_says_where_each_archive_belongs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        SEMANTIC_OF["openvocab_coco_2017_val_stuff_sem_seg"].load(tmp_path)
    message = " ".join(str(error.value).split())
    assert "stuffthingmaps_trainval2017.zip (https" in message
    assert "into coco/stuffthingmaps, then run" in message


def test_names_load_below_the_root_of_the_environment(tmp_path: Path) -> None:
    """One dataset of each kind, through the catalog of whichever engine is there."""
    names = [
        "openvocab_ade20k_panoptic_val",
        "openvocab_pascal_ctx459_sem_seg_val",
        "openvocab_lvis_1203_instance_val",
    ]
    panoptic_records(names[0], tmp_path)
    make_semantic(tmp_path, SEMANTIC[names[1]])
    instance_records(names[2], tmp_path)
    script = (
        "import maskclippp\n"
        "from detectron2.data import get_detection_dataset_dicts\n"
        f"for name in {names}: print(get_detection_dataset_dicts(name)[0]['file_name'])\n"
    )
    search_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=True,
    )
    layouts = [PANOPTIC[names[0]], SEMANTIC[names[1]], INSTANCES[names[2]]]
    assert [line for line in done.stdout.splitlines() if line.startswith(str(tmp_path))] == [
        str(tmp_path / layout.image) for layout in layouts
    ]


def test_json_of_another_dataset_is_said(tmp_path: Path) -> None:
    name = "openvocab_cityscapes_fine_panoptic_val"
    layout = PANOPTIC[name]._replace(panoptic="elsewhere/000000000012.png")
    make_panoptic(tmp_path, layout, panoptic_categories(name))
    with pytest.raises(ValueError, match="000000000012 is not a file of Cityscapes"):
        PANOPTIC_OF[name].load(tmp_path)
