"""Tiny datasets in the layouts in which the originals are distributed, drawn here."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

from tests.data.panoptic_scene import make_coco_panoptic

Array = npt.NDArray[Any]
ADE_FOLDERS = {"train": "training", "val": "validation"}
STEMS = {"train": ["1"], "val": ["2", "3"]}  # the end of each image's name
SIZES = {"1": (20, 30), "2": (24, 18), "3": (31, 25)}  # height, width

# Context's JSON: masks in order as (category, rows, columns); the later cover the earlier.
CONTEXT_MASKS = [(2, (0, 12), (0, 9)), (458, (6, 20), (3, 15)), (284, (10, 14), (0, 18))]
# The large image is reduced to 512 on its shorter side, the others keep their size.
FULL_SIZES = {"1": (20, 30), "2": (520, 780), "3": (600, 100)}
FULL_NUMBERS = (0, 2978, 312, 401, 3148, 1)  # none, wall, building, car, adding machine, another


def random_blocks(values: list[int], height: int, width: int, seed: int) -> Array:
    """A map [height, width] of blocks of 4 x 4 pixels, each of one of the values; all occur."""
    generator = np.random.default_rng(seed)
    blocks = generator.choice(values, (-(-height // 4), -(-width // 4)))
    blocks.flat[: len(values)] = values
    return blocks.repeat(4, 0).repeat(4, 1)[:height, :width]


def save(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_photograph(path: Path, height: int, width: int) -> None:
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    save(path, np.stack([rows * 7, columns * 5, rows + columns], -1).astype(np.uint8))


def make_ade20k(root: Path) -> None:
    """Semantic and instance maps; in every image an instance covers all of the sky (3)."""
    base = root / "ADEChallengeData2016"
    for split, stems in STEMS.items():
        for stem in stems:
            height, width = SIZES[stem]
            name = f"ADE_{split}_0000000{stem}"
            labels = random_blocks([0, 1, 4, 13, 150], height, width, int(stem))
            labels[2:5, 2:6] = 3
            instances = np.zeros((height, width, 3), np.uint8)
            instances[1:7, 1:9] = (4, 9, 0)  # a person
            instances[12:16, 3:10] = (100, 2, 77)  # a flag; blue means nothing
            instances[16:19, 0:4] = (4, 1, 0)
            folder = ADE_FOLDERS[split]
            save_photograph(base / "images" / folder / f"{name}.jpg", height, width)
            save(base / "annotations" / folder / f"{name}.png", labels.astype(np.uint8))
            save(base / "annotations_instance" / folder / f"{name}.png", instances)


def make_ade20k_full(root: Path) -> None:
    """Images in folders of scenes, and the index, which also holds arrays."""
    folders, names = [], []
    for split, stems in STEMS.items():
        for stem in stems:
            height, width = FULL_SIZES[stem]
            folders.append(f"ADE20K_2021_17_01/images/ADE/{ADE_FOLDERS[split]}/urban/street")
            names.append(f"ADE_{split}_0000000{stem}.jpg")
            numbers = random_blocks(list(FULL_NUMBERS), height, width, int(stem))
            colors = np.stack([numbers // 256 * 10 + 3, numbers % 256, numbers * 0 + 8], axis=-1)
            save_photograph(root / folders[-1] / names[-1], height, width)
            segmentation = names[-1].replace(".jpg", "_seg.png")
            save(root / folders[-1] / segmentation, colors.astype(np.uint8))
    index = {
        "folder": folders,
        "filename": names,
        "objectPresence": np.ones((5, 3), np.float32),
        "objectnames": np.array(["wall", "building, edifice"], dtype=object),
        "scene": np.array(["/street"] * 3),
        "description": {"filename": "the image file names"},
    }
    (root / "ADE20K_2021_17_01" / "index_ade20k.pkl").write_bytes(pickle.dumps(index, 4))


def make_voc(root: Path) -> None:
    base = root / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, stems in STEMS.items():
        names = [f"2007_00000{stem}" for stem in stems]
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for stem, name in zip(stems, names, strict=True):
            height, width = SIZES[stem]
            labels = random_blocks([0, 1, 15, 20, 255], height, width, int(stem))
            picture = Image.fromarray(labels.astype(np.uint8))
            picture.putpalette([(7 * i) % 256 for i in range(768)])
            (base / "SegmentationClass").mkdir(exist_ok=True)
            picture.save(base / "SegmentationClass" / f"{name}.png")
            save_photograph(base / "JPEGImages" / f"{name}.jpg", height, width)


def make_context(root: Path) -> None:
    """PASCAL in Detail's JSON and the MATLAB files of the 459 classes."""
    base = root / "VOCdevkit" / "VOC2010"
    (base / "trainval").mkdir(parents=True)
    images, annotations = [], []
    for split, stems in STEMS.items():
        for stem in stems:
            height, width = SIZES[stem]
            name = f"2008_00000{stem}"
            save_photograph(base / "JPEGImages" / f"{name}.jpg", height, width)
            images.append(
                {
                    "image_id": 2008000000 + int(stem),
                    "file_name": f"{name}.jpg",
                    "height": height,
                    "width": width,
                    "phase": split,
                }
            )
            for category, rows, columns in CONTEXT_MASKS:
                mask = np.zeros((height, width), np.uint8, order="F")
                mask[slice(*rows), slice(*columns)] = 1
                encoded = coco_mask.encode(mask)
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": images[-1]["image_id"],
                        "category_id": category,
                        "segmentation": {**encoded, "counts": encoded["counts"].decode()},
                    }
                )
            labels = random_blocks([0, 1, 59, 459], height, width, int(stem))
            savemat(base / "trainval" / f"{name}.mat", {"LabelMap": labels.astype(np.uint16)})
    content = {"images": images, "annos_segmentation": annotations, "categories": []}
    (base / "trainval_merged.json").write_text(json.dumps(content))


def make_coco_stuff(root: Path) -> None:
    for split, stems in STEMS.items():
        for stem in stems:
            height, width = SIZES[stem]
            labels = random_blocks([0, 10, 11, 12, 90, 181, 255], height, width, int(stem))
            name = f"{int(stem):012d}"
            maps = root / "coco" / "stuffthingmaps" / f"{split}2017"
            save(maps / f"{name}.png", labels.astype(np.uint8))
            save_photograph(root / "coco" / f"{split}2017" / f"{name}.jpg", height, width)


def make_coco(root: Path) -> None:
    for split in STEMS:
        make_coco_panoptic(root, split)


def make_cityscapes(root: Path) -> None:
    """Road, sky, a crowd of cars, two cars, a caravan (no class) and what is out of view (3)."""
    base = root / "cityscapes"
    for split, stems in STEMS.items():
        for stem in stems:
            height, width = SIZES[stem]
            city = f"city{stem}"
            name = f"{city}_00000{stem}_000019"
            ids = random_blocks([7, 23, 3, 26], height, width, int(stem)).astype(np.uint16)
            ids[2:6, 3:9] = 26_000
            ids[10:13, 1:8] = 26_011
            ids[14:18, 8:12] = 29_000
            labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
            folder = base / "gtFine" / split / city
            save(folder / f"{name}_gtFine_instanceIds.png", ids)
            save(folder / f"{name}_gtFine_labelIds.png", labels)
            photograph = base / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            save_photograph(photograph, height, width)
