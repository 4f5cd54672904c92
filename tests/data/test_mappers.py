"""Train mappers and the test mapper: drawn from a seed, compared to recorded or plain results."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_codec

from maskclippp.config import get_cfg
from maskclippp.data.coco_panoptic import coco_panoptic
from maskclippp.data.mappers import TestMapper, build_train_mapper
from maskclippp.data.mappers.transforms import resize_labels
from maskclippp.data.panoptic import load_panoptic_records
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.plain_mappers import (
    Expected,
    plain_coco_panoptic_lsj,
    plain_mask_former_semantic,
)
from tests.data.real_samples import mapper_cases, sample_records

DATASET = "openvocab_coco_2017_val_panoptic_with_sem_seg"
MAPPERS = {
    "COCOPanopticNewBaselineDatasetMapper": "coco_panoptic_lsj",
    "MaskFormerSemanticDatasetMapper": "mask_former_semantic",
}
CROP = {
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [40, 48],
    "INPUT.MIN_SIZE_TRAIN": [35, 50, 70],
    "INPUT.MAX_SIZE_TRAIN": 100,
}
LSJ = {"INPUT.IMAGE_SIZE": 64, "INPUT.MIN_SCALE": 0.4, "INPUT.MAX_SCALE": 1.7}
PLAIN_RUNS = [
    ("coco_panoptic_lsj", plain_coco_panoptic_lsj, LSJ),
    ("coco_panoptic_lsj", plain_coco_panoptic_lsj, {**LSJ, "INPUT.RANDOM_FLIP": "vertical"}),
    ("coco_panoptic_lsj", plain_coco_panoptic_lsj, {**LSJ, "INPUT.RANDOM_FLIP": "none"}),
    ("mask_former_semantic", plain_mask_former_semantic, CROP),
    (
        "mask_former_semantic",
        plain_mask_former_semantic,
        {**CROP, "INPUT.SIZE_DIVISIBILITY": 44, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.6},
    ),
]


@dataclass
class Run:
    """One mapper call with its expected result."""

    name: str
    mapper: str
    config: dict[str, Any]
    seed: int
    record: dict[str, Any]
    expected: Callable[[], Expected]


def configuration(mapper: str, config: dict[str, Any]) -> Any:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (DATASET,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    cfg.merge_from_list([item for pair in config.items() for item in pair])
    return cfg


def records_below(root: Path) -> list[dict[str, Any]]:
    return load_panoptic_records(coco_panoptic("val"), root, check_files=True)


def recorded_runs() -> list[tuple[str, Path, dict[str, Any]]]:
    """Name, folder and description of every recorded run; empty in a lone clone."""
    return [
        (name, folder, run) for folder, case in mapper_cases() for name, run in case["runs"].items()
    ]


def recorded_expectation(folder: Path, run: dict[str, Any]) -> Expected:
    masks = [mask_codec.decode(code).astype(bool) for code in run["gt_masks_rle"]]
    labels = run.get("sem_seg_png")
    return Expected(
        image=np.array(Image.open(folder / run["image_png"])),
        classes=run["gt_classes"],
        masks=np.stack(masks),
        labels=None if labels is None else np.array(Image.open(folder / labels)),
    )


def no_expectation() -> Expected:
    raise NotImplementedError("this run is compared with nothing")


def recorded_record(run: dict[str, Any]) -> dict[str, Any]:
    (record,) = (r for r in sample_records() if r["file_name"].endswith(run["image_file"]))
    return record


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return records_below(make_coco_panoptic(tmp_path_factory.mktemp("scene")))


def all_runs(scene: list[dict[str, Any]]) -> list[Run]:
    runs = [
        Run(
            f"plain {mapper} {config} {seed}",
            mapper,
            config,
            seed,
            record,
            lambda plain=plain, record=record, config=config, seed=seed: plain(
                record, config, seed
            ),
        )
        for mapper, plain, config in PLAIN_RUNS
        for seed in range(4)
        for record in scene
    ]
    runs += [
        Run(
            name,
            MAPPERS[run["mapper"]],
            run["config"],
            run["numpy_and_python_seed"],
            recorded_record(run),
            lambda folder=folder, run=run: recorded_expectation(folder, run),
        )
        for name, folder, run in recorded_runs()
        if run["mapper"] in MAPPERS
    ]
    return runs


def call(run: Run) -> dict[str, Any]:
    mapper = build_train_mapper(configuration(run.mapper, run.config))
    np.random.seed(run.seed)
    random.seed(run.seed)
    return mapper(run.record)


def test_outputs_equal_recorded_and_plain_ones(scene: list[dict[str, Any]]) -> None:
    for run in all_runs(scene):
        output, expected = call(run), run.expected()
        image = output["image"].permute(1, 2, 0).numpy()
        assert image.shape == expected.image.shape, run.name
        assert np.abs(image.astype(int) - expected.image).max() <= 1, run.name
        assert output["instances"].gt_classes.tolist() == expected.classes, run.name
        assert output["instances"].gt_masks.dtype == torch.bool
        assert (output["instances"].gt_masks.numpy() == expected.masks).all(), run.name
        if expected.labels is not None:
            assert (output["sem_seg"].numpy() == expected.labels).all(), run.name


def test_boxes_enclose_the_masks(scene: list[dict[str, Any]]) -> None:
    for run in all_runs(scene):
        if run.mapper != "coco_panoptic_lsj":
            continue
        instances = call(run)["instances"]
        for mask, box in zip(instances.gt_masks, instances.gt_boxes.tensor.tolist(), strict=True):
            rows, columns = mask.numpy().nonzero()
            if len(rows):
                assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            else:
                assert box == [0, 0, 0, 0]


def test_image_is_bytes_in_the_configured_channel_order(scene: list[dict[str, Any]]) -> None:
    images = {}
    for channels in ("RGB", "BGR"):
        config = {**LSJ, "INPUT.FORMAT": channels}
        run = Run("", "coco_panoptic_lsj", config, 3, scene[0], no_expectation)
        images[channels] = call(run)["image"]
    assert images["RGB"].dtype == torch.uint8
    assert torch.equal(images["RGB"].flip(0), images["BGR"])


def test_original_size_is_kept_and_the_record_untouched(scene: list[dict[str, Any]]) -> None:
    record = {k: v for k, v in scene[0].items() if k not in ("height", "width")}
    before = dict(record)
    output = call(Run("", "mask_former_semantic", CROP, 1, record, no_expectation))
    assert (output["height"], output["width"]) == (scene[0]["height"], scene[0]["width"])
    assert record == before


def test_image_without_labels_gives_no_mask(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "segments_info": []}
    for mapper, config in (("coco_panoptic_lsj", LSJ), ("mask_former_semantic", CROP)):
        instances = call(Run("", mapper, config, 1, record, no_expectation))["instances"]
        assert instances.gt_masks.shape[0] == len(instances.gt_classes) == 0


def test_unknown_mapper_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"coco_panoptic_lsj.*mask_former_semantic"):
        build_train_mapper(configuration("nonsense", {}))


def test_lsj_without_panoptic_annotation_says_so(scene: list[dict[str, Any]]) -> None:
    record = {"file_name": scene[0]["file_name"], "sem_seg_file_name": "a.png"}
    with pytest.raises(ValueError, match="needs panoptic annotation"):
        build_train_mapper(configuration("coco_panoptic_lsj", LSJ))(record)


def test_size_in_the_annotation_must_be_the_image_size(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "height": 1}
    for mapper, config in (("coco_panoptic_lsj", LSJ), ("mask_former_semantic", CROP)):
        with pytest.raises(ValueError, match="its annotation says 1 x"):
            build_train_mapper(configuration(mapper, config))(record)


def test_annotation_of_another_size_names_both_files(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "pan_seg_file_name": scene[1]["pan_seg_file_name"]}
    for mapper, config in (("coco_panoptic_lsj", LSJ), ("mask_former_semantic", CROP)):
        with pytest.raises(ValueError, match="sizes differ") as error:
            build_train_mapper(configuration(mapper, config))(record)
        assert record["file_name"] in str(error.value)
        assert str(scene[1]["height"]) in str(error.value)


def test_mapper_gives_the_size_and_labels_that_were_recorded(scene: list[dict[str, Any]]) -> None:
    runs = [(f, r, recorded_record(r)) for _, f, r in recorded_runs() if r["transforms"] is None]
    for folder, run, record in runs:
        mapper = TestMapper(
            configuration("coco_panoptic_lsj", run["config"]), DATASET, with_ground_truth=True
        )
        output = mapper(record)
        image = output["image"].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(image - np.array(Image.open(folder / run["image_png"]))).max() <= 1
        labels = np.array(Image.open(folder / run["sem_seg_png"]))
        # The published mapper resizes the labels; ours keeps every pixel of them.
        height, width = output["image"].shape[1:]
        assert (resize_labels(output["sem_seg"], (height, width), "centre").numpy() == labels).all()
        assert run["output_keys"] == sorted(output.keys() & set(run["output_keys"]))
    plain = {"INPUT.MIN_SIZE_TEST": 100, "INPUT.MAX_SIZE_TEST": 130}
    mapper = TestMapper(configuration("coco_panoptic_lsj", plain), DATASET, with_ground_truth=True)
    output = mapper(scene[0])
    resized = Image.open(scene[0]["file_name"]).resize((130, 88), Image.Resampling.BILINEAR)
    assert (output["image"].permute(1, 2, 0).numpy() == np.array(resized)).all()
    colors = np.array(Image.open(scene[0]["pan_seg_file_name"])).astype(int)
    ids = colors @ [1, 256, 65536]
    assert (output["pan_seg"].numpy() == ids).all()
    classes = {s["id"]: s["category_id"] for s in scene[0]["segments_info"]} | {0: 255}
    assert (output["sem_seg"].numpy() == np.vectorize(classes.get)(ids)).all()


def test_without_ground_truth_no_annotation_file_is_read(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "pan_seg_file_name": "absent.png", "sem_seg_file_name": "absent.png"}
    mapper = TestMapper(configuration("coco_panoptic_lsj", {}), DATASET, with_ground_truth=False)
    output = mapper(record)
    assert "sem_seg" not in output
    assert "pan_seg" not in output
    assert output["image"].shape[1:] == (800, 1180)


@pytest.mark.parametrize(("name", "expected"), [("GTSegmentor", True), ("FCCLIPSegmentor", False)])
def test_ground_truth_is_read_for_the_segmentors_that_need_it(name: str, expected: bool) -> None:
    cfg = configuration("coco_panoptic_lsj", {"MODEL.MASKCLIPPP.SEGMENTOR.NAME": name})
    assert TestMapper(cfg, DATASET).with_ground_truth is expected


def test_exif_orientation_turns_the_image(scene: list[dict[str, Any]], tmp_path: Path) -> None:
    upright = Image.open(scene[0]["file_name"])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: a viewer must rotate by 90 degrees clockwise
    turned = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    cfg = configuration("coco_panoptic_lsj", {"INPUT.MIN_SIZE_TEST": 0})
    output = TestMapper(cfg, DATASET, with_ground_truth=False)({"file_name": str(turned)})
    assert (output["image"].permute(1, 2, 0).numpy() == np.array(upright)).all()
    assert (output["height"], output["width"]) == (upright.height, upright.width)


def test_broken_image_is_named(scene: list[dict[str, Any]], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    shutil.copy(scene[0]["file_name"], broken)
    broken.write_bytes(broken.read_bytes()[:400])
    mapper = TestMapper(configuration("coco_panoptic_lsj", {}), DATASET, with_ground_truth=False)
    with pytest.raises(OSError, match=r"broken\.jpg cannot be read"):
        mapper({"file_name": str(broken)})


def test_semantic_mapper_takes_the_ignore_label_of_the_training_set() -> None:
    cfg = configuration("mask_former_semantic", CROP)
    assert build_train_mapper(cfg).ignore_label == MetadataCatalog.get(DATASET).ignore_label
