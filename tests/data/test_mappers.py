"""Train mappers and the test mapper: drawn from a seed, compared to recorded or plain results."""

import functools
import operator
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

from maskclippp.config.keys import get_cfg
from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.mappers import EvaluationMapper, build_train_mapper
from maskclippp.data.mappers.transforms import resize_labels
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.plain_mappers import (
    Expected,
    plain_coco_panoptic_lsj,
    plain_mask_former_panoptic,
    plain_mask_former_semantic,
)
from tests.data.real_samples import mapper_cases, sample_records

DATASET = "openvocab_coco_2017_val_panoptic_with_sem_seg"
MAPPERS = {
    "COCOPanopticNewBaselineDatasetMapper": "coco_panoptic_lsj",
    "MaskFormerSemanticDatasetMapper": "mask_former_semantic",
    "MaskFormerPanopticDatasetMapper": "mask_former_panoptic",
}
CROP = {
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [40, 48],
    "INPUT.MIN_SIZE_TRAIN": [35, 50, 70],
    "INPUT.MAX_SIZE_TRAIN": 100,
}
LIMITED_AND_PADDED = {
    **CROP,
    "INPUT.SIZE_DIVISIBILITY": 44,
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.6,
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
        LIMITED_AND_PADDED,
    ),
    ("mask_former_panoptic", plain_mask_former_panoptic, CROP),
    ("mask_former_panoptic", plain_mask_former_panoptic, LIMITED_AND_PADDED),
]
ON_PANOPTIC_RECORDS = [
    ("coco_panoptic_lsj", LSJ),
    ("mask_former_semantic", CROP),
    ("mask_former_panoptic", CROP),
]


@dataclass
class Run:
    """One mapper call with its expected result; ``record`` picks from the drawn scene or a file."""

    name: str
    mapper: str
    config: dict[str, Any]
    seed: int
    record: Callable[[list[dict[str, Any]]], dict[str, Any]]
    expected: Callable[[dict[str, Any]], Expected]

    def __str__(self) -> str:
        return self.name


def configuration(mapper: str, config: dict[str, Any]) -> Any:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (DATASET,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    cfg.merge_from_list([item for pair in config.items() for item in pair])
    return cfg


def records_below(root: Path) -> list[dict[str, Any]]:
    return coco_panoptic("val").load(root)


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


def recorded_record(run: dict[str, Any]) -> dict[str, Any]:
    (record,) = (r for r in sample_records() if r["file_name"].endswith(run["image_file"]))
    return record


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return records_below(make_coco_panoptic(tmp_path_factory.mktemp("scene")))


def all_runs() -> list[Run]:
    """Runs on the drawn scene, compared with the plain mappers, and recorded ones, if any."""
    runs = [
        Run(
            f"plain-{mapper}-{number}-{seed}-{image}",
            mapper,
            config,
            seed,
            operator.itemgetter(image),
            functools.partial(plain, config=config, seed=seed),
        )
        for number, (mapper, plain, config) in enumerate(PLAIN_RUNS)
        for seed in range(4)
        for image in range(2)
    ]
    runs += [
        Run(
            f"recorded-{name}",
            MAPPERS[run["mapper"]],
            run["config"],
            run["numpy_and_python_seed"],
            lambda scene, run=run: recorded_record(run),
            lambda record, folder=folder, run=run: recorded_expectation(folder, run),
        )
        for name, folder, run in recorded_runs()
        if run["mapper"] in MAPPERS
    ]
    return runs


def call(mapper: str, config: dict[str, Any], seed: int, record: dict[str, Any]) -> dict[str, Any]:
    built = build_train_mapper(configuration(mapper, config))
    np.random.seed(seed)
    random.seed(seed)
    return built(record)


def augmented_class_ids(run: Run, record: dict[str, Any]) -> torch.Tensor:
    built = build_train_mapper(configuration(run.mapper, run.config))
    np.random.seed(run.seed)
    random.seed(run.seed)
    _, augmented = built.augment(record)
    return augmented.parts[-1]


@pytest.mark.parametrize("run", all_runs(), ids=str)
def test_outputs_equal_recorded_and_plain_ones(run: Run, scene: list[dict[str, Any]]) -> None:
    record = run.record(scene)
    output, expected = call(run.mapper, run.config, run.seed, record), run.expected(record)
    image = output["image"].permute(1, 2, 0).numpy()
    assert image.shape == expected.image.shape
    assert np.abs(image.astype(int) - expected.image).max() <= 1
    assert output["instances"].gt_classes.tolist() == expected.classes
    assert output["instances"].gt_masks.dtype == torch.bool
    assert (output["instances"].gt_masks.numpy() == expected.masks).all()
    if expected.labels is not None:
        # The model does not read class ids: they limit the crops, and the masks come from them.
        labels = augmented_class_ids(run, record)
        assert (labels.numpy() == expected.labels).all()


@pytest.mark.parametrize(("mapper", "config"), ON_PANOPTIC_RECORDS)
def test_a_batch_carries_only_what_the_model_reads(
    mapper: str, config: dict[str, Any], scene: list[dict[str, Any]]
) -> None:
    output = call(mapper, config, 3, scene[0])
    assert set(output) == {"file_name", "image_id", "height", "width", "image", "instances"}
    assert set(output["instances"].get_fields()) == {"gt_classes", "gt_masks"}
    assert output["image"].dtype == torch.uint8


def test_original_size_is_kept_and_the_record_untouched(scene: list[dict[str, Any]]) -> None:
    record = {k: v for k, v in scene[0].items() if k not in ("height", "width")}
    before = dict(record)
    output = call("mask_former_semantic", CROP, 1, record)
    assert (output["height"], output["width"]) == (scene[0]["height"], scene[0]["width"])
    assert record == before


def test_image_without_labels_gives_no_mask(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "segments_info": []}
    for mapper, config in ON_PANOPTIC_RECORDS:
        instances = call(mapper, config, 1, record)["instances"]
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
    for mapper, config in ON_PANOPTIC_RECORDS:
        with pytest.raises(ValueError, match="its annotation says 1 x"):
            build_train_mapper(configuration(mapper, config))(record)


def test_annotation_of_another_size_names_both_files(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "pan_seg_file_name": scene[1]["pan_seg_file_name"]}
    for mapper, config in ON_PANOPTIC_RECORDS:
        with pytest.raises(ValueError, match="sizes differ") as error:
            build_train_mapper(configuration(mapper, config))(record)
        assert record["file_name"] in str(error.value)
        assert record["pan_seg_file_name"] in str(error.value)
        assert str(scene[1]["height"]) in str(error.value)


@dataclass
class TestRun:
    """One call of the test mapper; the labels are those of the resized image."""

    __test__ = False

    record: dict[str, Any]
    config: dict[str, Any]
    image: np.ndarray
    labels: np.ndarray


def drawn_test_runs(scene: list[dict[str, Any]]) -> list[TestRun]:
    """Sizes by hand: the shorter side at 100, unless the longer one would exceed 130."""
    runs = []
    for record, (height, width) in zip(scene, [(88, 130), (130, 85)], strict=True):
        picture = Image.open(record["file_name"])
        colors = np.array(Image.open(record["pan_seg_file_name"])).astype(int)
        classes = {s["id"]: s["category_id"] for s in record["segments_info"]} | {0: 255}
        labels = np.vectorize(classes.get)(colors @ [1, 256, 65536]).astype(np.uint8)
        size = (width, height)
        runs.append(
            TestRun(
                record,
                {"INPUT.MIN_SIZE_TEST": 100, "INPUT.MAX_SIZE_TEST": 130},
                np.array(picture.resize(size, Image.Resampling.BILINEAR)),
                np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)),
            )
        )
    return runs


def recorded_test_runs(scene: list[dict[str, Any]]) -> list[TestRun]:
    return [
        TestRun(
            recorded_record(run),
            run["config"],
            np.array(Image.open(folder / run["image_png"])),
            np.array(Image.open(folder / run["sem_seg_png"])),
        )
        for _, folder, run in recorded_runs()
        if run["transforms"] is None
    ]


@pytest.mark.parametrize(
    "runs", [drawn_test_runs, *([recorded_test_runs] if recorded_runs() else [])]
)
def test_mapper_gives_the_expected_image_and_labels(
    runs: Callable[[list[dict[str, Any]]], list[TestRun]], scene: list[dict[str, Any]]
) -> None:
    found = runs(scene)
    assert found
    for run in found:
        cfg = configuration("coco_panoptic_lsj", run.config)
        output = EvaluationMapper(cfg, DATASET, with_ground_truth=True)(run.record)
        image = output["image"].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(image - run.image).max() <= 1
        # The published mapper resizes the labels; ours keeps every pixel of them.
        resized = resize_labels(output["sem_seg"], image.shape[:2], "center")
        assert (resized.numpy() == run.labels).all()
        assert output["ignore_label"] == 255
        published = {"image", "sem_seg", "height", "width", "pan_seg_file_name", "segments_info"}
        assert published <= output.keys()


def test_panoptic_ids_keep_their_size_and_values(scene: list[dict[str, Any]]) -> None:
    cfg = configuration("coco_panoptic_lsj", {"INPUT.MIN_SIZE_TEST": 100})
    output = EvaluationMapper(cfg, DATASET, with_ground_truth=True)(scene[0])
    colors = np.array(Image.open(scene[0]["pan_seg_file_name"])).astype(int)
    assert (output["pan_seg"].numpy() == colors @ [1, 256, 65536]).all()


def test_test_mapper_names_the_panoptic_map_when_labels_are_derived_from_it(
    scene: list[dict[str, Any]],
) -> None:
    record = {**scene[0], "pan_seg_file_name": scene[1]["pan_seg_file_name"]}
    mapper = EvaluationMapper(
        configuration("coco_panoptic_lsj", {}), DATASET, with_ground_truth=True
    )
    with pytest.raises(ValueError, match="sizes differ") as error:
        mapper(record)
    assert scene[1]["pan_seg_file_name"] in str(error.value)


def test_without_ground_truth_no_annotation_file_is_read(scene: list[dict[str, Any]]) -> None:
    record = {**scene[0], "pan_seg_file_name": "absent.png", "sem_seg_file_name": "absent.png"}
    mapper = EvaluationMapper(
        configuration("coco_panoptic_lsj", {}), DATASET, with_ground_truth=False
    )
    output = mapper(record)
    assert "sem_seg" not in output
    assert "pan_seg" not in output
    assert output["image"].shape[1:] == (800, 1180)


def test_exif_orientation_turns_the_image(scene: list[dict[str, Any]], tmp_path: Path) -> None:
    upright = Image.open(scene[0]["file_name"])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: a viewer must rotate by 90 degrees clockwise
    turned = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    cfg = configuration("coco_panoptic_lsj", {"INPUT.MIN_SIZE_TEST": 0})
    output = EvaluationMapper(cfg, DATASET, with_ground_truth=False)({"file_name": str(turned)})
    assert (output["image"].permute(1, 2, 0).numpy() == np.array(upright)).all()
    assert (output["height"], output["width"]) == (upright.height, upright.width)


def test_broken_image_is_named(scene: list[dict[str, Any]], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    shutil.copy(scene[0]["file_name"], broken)
    broken.write_bytes(broken.read_bytes()[:400])
    mapper = EvaluationMapper(
        configuration("coco_panoptic_lsj", {}), DATASET, with_ground_truth=False
    )
    with pytest.raises(OSError, match=r"broken\.jpg cannot be read"):
        mapper({"file_name": str(broken)})


def test_semantic_mapper_takes_the_ignore_label_of_the_training_set() -> None:
    cfg = configuration("mask_former_semantic", CROP)
    assert (
        build_train_mapper(cfg).target.rules.ignore_label
        == MetadataCatalog.get(DATASET).ignore_label
    )


def test_label_that_is_no_class_of_the_training_set_names_its_file(
    scene: list[dict[str, Any]], tmp_path: Path
) -> None:
    label_file = tmp_path / "labels.png"
    labels = np.full((scene[0]["height"], scene[0]["width"]), 133, dtype=np.uint8)
    Image.fromarray(labels).save(label_file)
    record = {**scene[0], "sem_seg_file_name": str(label_file)}
    message = rf"label file {label_file}: pixel value 133 .*{DATASET} allows 0\.\.132 "
    with pytest.raises(ValueError, match=message):
        call("mask_former_semantic", CROP, 0, record)
