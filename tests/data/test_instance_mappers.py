"""Train mappers on instance annotation: recorded results, and plain ones on a drawn scene."""

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks
from PIL import Image
from pycocotools import mask as mask_codec

from maskclippp.config.keys import get_cfg
from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.mappers import build_train_mapper
from maskclippp.words import load_class_list
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.plain_mappers import (
    Expected,
    plain_coco_panoptic_lsj,
    plain_mask_former_panoptic,
)
from tests.data.real_samples import mapper_cases, sample_root

MAPPERS = {
    "COCOInstanceNewBaselineDatasetMapper": "coco_instance_lsj",
    "MaskFormerInstanceDatasetMapper": "mask_former_instance",
}
HEIGHT, WIDTH = 40, 60
CROP = {
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [30, 30],
    "INPUT.MIN_SIZE_TRAIN": [40],
    "INPUT.MAX_SIZE_TRAIN": 100,
}
LSJ = {"INPUT.IMAGE_SIZE": 48, "INPUT.MIN_SCALE": 1.0, "INPUT.MAX_SCALE": 1.0}
BOTH = [("coco_instance_lsj", LSJ), ("mask_former_instance", CROP)]


@dataclass
class Run:
    """A mapper call with what is expected of it."""

    mapper: str
    config: dict[str, Any]
    seed: int
    record: dict[str, Any]
    expected: Expected
    boxes: list[list[float]] | None = None


def recorded_record(name: str, run: dict[str, Any]) -> dict[str, Any]:
    """The record of a recorded run.

    The sample's objects have run-length codes; where polygons were needed, the recorded run drew
    each object as a shield that fills its box: straight sides down to 0.6, then to a point.
    """
    coco = sample_root() / "coco"
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    (image,) = (i for i in content["images"] if i["file_name"] == run["image_file"])
    positions = load_class_list("coco_panoptic").positions
    objects = [
        {**a, "category_id": positions[a["category_id"]]}
        for a in content["annotations"]
        if a["image_id"] == image["id"]
    ]
    if "polygons" in name or MAPPERS[run["mapper"]] == "coco_instance_lsj":
        for entry in objects:
            x, y, w, h = entry["bbox"]
            shield = [x, y, x + w, y, x + w, y + 0.6 * h, x + w / 2, y + h, x, y + 0.6 * h]
            entry["segmentation"] = [shield]
    return {
        "file_name": str(coco / "val2017" / run["image_file"]),
        "image_id": image["id"],
        "annotations": objects,
    }


def call(mapper: str, config: dict[str, Any], record: dict[str, Any], seed: int = 0) -> Any:
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    cfg.merge_from_list([item for pair in config.items() for item in pair])
    built = build_train_mapper(cfg)
    np.random.seed(seed)
    random.seed(seed)
    return built(record)


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    """A rectangle each as polygon, compressed code, plain code and array; and a crowd."""
    colors = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(colors).save(tmp_path / "image.png")
    masks = np.zeros((4, HEIGHT, WIDTH), dtype=np.uint8)
    for mask, (top, left, bottom, right) in zip(masks, RECTANGLES, strict=True):
        mask[top:bottom, left:right] = 1
    compressed = mask_codec.encode(np.asfortranarray(masks[1]))
    runs = np.flatnonzero(np.diff(masks[2].T.ravel(), prepend=0, append=0)).tolist()
    plain = np.diff([0, *runs, HEIGHT * WIDTH]).tolist()
    top, left, bottom, right = RECTANGLES[0]
    polygon = [left, top, right, top, right, bottom, left, bottom]
    forms: list[Any] = [
        [polygon],
        compressed,
        {"size": [HEIGHT, WIDTH], "counts": plain},
        masks[3],
        compressed,
    ]
    return {
        "file_name": str(tmp_path / "image.png"),
        "annotations": [
            {"id": index, "category_id": index, "iscrowd": int(index == 4), "segmentation": form}
            for index, form in enumerate(forms)
        ],
    }


RECTANGLES = [(2, 3, 20, 15), (5, 30, 35, 50), (22, 4, 38, 25), (0, 52, 40, 60)]


def rectangles(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    masks = torch.zeros(len(RECTANGLES), height, width, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, RECTANGLES, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def drawn_runs(root: Path) -> list[Run]:
    """Panoptic scenes with segments for objects; the plain panoptic mappers say what to expect."""
    records = coco_panoptic("val").load(make_coco_panoptic(root))
    runs = []
    for record, seed in itertools.product(records, range(4)):
        colors = np.array(Image.open(record["pan_seg_file_name"])).astype(int)
        objects = [
            {**s, "segmentation": colors @ [1, 256, 65536] == s["id"]}
            for s in record["segments_info"]
        ]
        objects_record = {"file_name": record["file_name"], "annotations": objects}
        jittered = {"INPUT.IMAGE_SIZE": 64, "INPUT.MIN_SCALE": 0.4, "INPUT.MAX_SCALE": 1.7}
        expected = plain_coco_panoptic_lsj(record, jittered, seed)
        left = expected.masks.any((1, 2))
        expected.masks = expected.masks[left]
        expected.classes = np.array(expected.classes)[left].tolist()
        runs.append(Run("coco_instance_lsj", jittered, seed, objects_record, expected))
        cropped = {**CROP, "INPUT.SIZE_DIVISIBILITY": 33}
        expected = plain_mask_former_panoptic(record, cropped, seed)
        runs.append(Run("mask_former_instance", cropped, seed, objects_record, expected))
    return runs


def recorded_runs(root: Path) -> list[Run]:
    """Every recorded run on instances; there is none in a lone clone."""
    runs = []
    for folder, case in mapper_cases():
        for name, run in case["runs"].items():
            if run["mapper"] not in MAPPERS:
                continue
            expected = Expected(
                image=np.array(Image.open(folder / run["image_png"])),
                classes=run["gt_classes"],
                masks=np.stack([mask_codec.decode(code) != 0 for code in run["gt_masks_rle"]]),
            )
            seed = run["numpy_and_python_seed"]
            record = recorded_record(name, run)
            boxes = run.get("gt_boxes")
            runs.append(Run(MAPPERS[run["mapper"]], run["config"], seed, record, expected, boxes))
    return runs


@pytest.mark.parametrize("make_runs", [drawn_runs, recorded_runs])
def test_outputs_equal_recorded_and_plain_ones(
    make_runs: Callable[[Path], list[Run]], tmp_path: Path
) -> None:
    for run in make_runs(tmp_path):
        output = call(run.mapper, run.config, run.record, run.seed)
        image = output["image"].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(image - run.expected.image).max() <= 1
        instances = output["instances"]
        assert instances.gt_classes.tolist() == run.expected.classes
        assert (instances.gt_masks.numpy() == run.expected.masks).all()
        if run.boxes is not None:
            # Recorded boxes enclose polygons, ours their pixels, which a sharp point has not.
            boxes = BitMasks(instances.gt_masks).get_bounding_boxes().tensor
            assert (boxes - torch.tensor(run.boxes)).abs().max() <= 2


def test_every_form_of_annotation_gives_its_mask(record: dict[str, Any]) -> None:
    config = {"INPUT.CROP.ENABLED": False, **{k: v for k, v in CROP.items() if "SIZE_TR" in k}}
    output = call("mask_former_instance", config, record, seed=1)
    masks = output["instances"].gt_masks
    flipped = not torch.equal(masks, rectangles())
    assert torch.equal(masks.flip(2) if flipped else masks, rectangles())
    assert output["instances"].gt_classes.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(6))
def test_polygons_move_with_the_image(record: dict[str, Any], seed: int) -> None:
    """An object as polygon and as mask is the same, whatever is drawn, at the image's own scale."""
    top, left, bottom, right = RECTANGLES[3]
    polygon = [[left, top, right, top, right, bottom, left, bottom]]
    both = [
        {"category_id": 0, "segmentation": polygon},
        {"category_id": 1, "segmentation": rectangles()[3].numpy()},
    ]
    for mapper, config in BOTH:
        scale = {"INPUT.IMAGE_SIZE": WIDTH} if mapper == "coco_instance_lsj" else {}
        output = call(mapper, {**config, **scale}, {**record, "annotations": both}, seed)
        masks = output["instances"].gt_masks
        assert len(masks) == (2 if len(masks) else 0)
        assert len(masks) == 0 or torch.equal(masks[0], masks[1])


def test_objects_that_the_crop_left_out_are_dropped_or_kept_empty(record: dict[str, Any]) -> None:
    corner = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    corner[0, 0] = 1
    record["annotations"].append({"category_id": 7, "segmentation": corner})
    magnified = {"INPUT.IMAGE_SIZE": 20, "INPUT.MIN_SCALE": 3.0, "INPUT.MAX_SCALE": 3.0}
    dropped = call("coco_instance_lsj", {**LSJ, **magnified}, record, seed=3)["instances"]
    assert dropped.gt_masks.flatten(1).any(1).all()
    assert 7 not in dropped.gt_classes
    kept = call("mask_former_instance", CROP, record, seed=3)["instances"]
    assert len(kept.gt_classes) == len(kept.gt_masks) == 5
    assert not kept.gt_masks[4].any()


def test_outlines_outside_the_image_leave_the_padding_free(record: dict[str, Any]) -> None:
    beyond = [-5, -5, WIDTH + 5, -5, WIDTH + 5, HEIGHT + 20, -5, HEIGHT + 20]
    record["annotations"] = [{"category_id": 0, "segmentation": [beyond]}]
    output = call("coco_instance_lsj", LSJ, record)
    height = round(HEIGHT * 48 / WIDTH)
    expected = torch.ones(48, 48, dtype=torch.bool)
    expected[height:] = False
    assert torch.equal(output["instances"].gt_masks[0], expected)
    assert (output["image"][:, height:] == 128).all()


def test_masks_are_padded_and_cut_to_the_configured_size(record: dict[str, Any]) -> None:
    for side in (24, 44):
        output = call("mask_former_instance", {**CROP, "INPUT.SIZE_DIVISIBILITY": side}, record)
        assert output["image"].shape[1:] == output["instances"].gt_masks.shape[1:] == (side, side)
    assert not output["instances"].gt_masks[:, 30:].any()
    assert (output["image"][:, 30:] == 128).all()


@pytest.mark.parametrize(("mapper", "config"), BOTH)
def test_color_changes_touch_the_image_alone(
    mapper: str, config: dict[str, Any], record: dict[str, Any]
) -> None:
    plain = call(mapper, config, record, seed=5)
    colored = call(mapper, {**config, "INPUT.COLOR_AUG_SSD": True}, record, seed=5)
    assert not torch.equal(plain["image"], colored["image"])
    assert colored["image"].dtype == torch.uint8
    assert torch.equal(plain["instances"].gt_masks, colored["instances"].gt_masks)


@pytest.mark.parametrize(("mapper", "config"), BOTH)
def test_image_without_objects_gives_no_mask(
    mapper: str, config: dict[str, Any], record: dict[str, Any]
) -> None:
    instances = call(mapper, config, {**record, "annotations": []})["instances"]
    assert len(instances.gt_classes) == len(instances.gt_masks) == 0


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([], "at least 3 points"),
        (None, "found NoneType"),
        ({"size": [2, 2], "counts": [0, 4]}, "its mask is 2 x 2, the image 40 x 60"),
    ],
)
def test_wrong_annotation_names_image_and_object(
    segmentation: Any, message: str, record: dict[str, Any]
) -> None:
    record["annotations"][1]["segmentation"] = segmentation
    with pytest.raises(ValueError, match=message) as error:
        call("mask_former_instance", CROP, record)
    assert "image.png: object 1 (annotation 1)" in str(error.value)


def test_record_without_objects_key_says_what_to_choose(record: dict[str, Any]) -> None:
    del record["annotations"]
    with pytest.raises(ValueError, match="choose an instance dataset"):
        call("coco_instance_lsj", LSJ, record)


@pytest.mark.parametrize(("mapper", "config"), BOTH)
def test_a_triangle_is_drawn_and_less_is_nothing(
    mapper: str, config: dict[str, Any], record: dict[str, Any]
) -> None:
    """Also one that the crop leaves of a larger outline."""
    whole = {**config, "INPUT.CROP.ENABLED": False, "INPUT.RANDOM_FLIP": "none"}
    triangle = [2, 2, 2, 38, 50, 38]
    record["annotations"] = [{"category_id": 0, "segmentation": [triangle]}]
    masks = call(mapper, whole, record)["instances"].gt_masks
    assert len(masks) == 1
    assert 0.4 < masks[0].sum() / masks[0].any(0).sum() / masks[0].any(1).sum() < 0.6
