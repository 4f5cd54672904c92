#!/usr/bin/env python
"""PASCAL Context with its 59 frequent classes: images, and label maps with ids 0..58.

Reads ``VOCdevkit/VOC2010`` (or ``VOC2010``) below the dataset root: ``JPEGImages`` and next to it
``trainval_merged.json`` of PASCAL in Detail; writes ``pascal_ctx_d2/images`` and
``pascal_ctx_d2/annotations_ctx59`` (255 = ignore).

The JSON lists ``images`` (``image_id``, ``file_name``, ``height``, ``width``, ``phase`` train or
val) and ``annos_segmentation``, whose entries have ``image_id``, ``category_id`` and a run-length
encoded ``segmentation``; later entries cover earlier ones, as in the Detail API. Reading it takes
several GB of memory.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.data.coco_json import RunLengthCode
from maskclippp.files.json_files import read_json
from maskclippp.masks import run_length
from maskclippp.words import load_class_list
from preparation.files import LabelMap
from preparation.labels import renumber
from preparation.pascal import challenge_folder, copied_images, label_path
from preparation.steps import Files, Step, errors_name, require_file, run_script

WHERE_TO_GET = (
    "unpack VOCtrainval_03-May-2010.tar (http://host.robots.ox.ac.uk/pascal/VOC/voc2010/) into the "
    "root of all datasets and put trainval_merged.json "
    "(https://sites.google.com/view/pasd/dataset) into its VOC2010, next to JPEGImages"
)


class _Image(TypedDict):
    image_id: int | str
    file_name: str
    height: int
    width: int
    phase: str


class _Segment(TypedDict):
    image_id: int | str
    category_id: int
    segmentation: RunLengthCode


class _Detail(TypedDict):
    images: list[_Image]
    annos_segmentation: list[_Segment]


def class_ids(
    size: tuple[int, int], segments: list[tuple[int, RunLengthCode]], image: Path
) -> npt.NDArray[np.uint8]:
    """The label map [h, w] of one image from (category, encoded mask) in the JSON's order."""
    labels = np.zeros(size, np.int32)
    values = list(load_class_list("pascal_context_59").ids)
    with errors_name(image):
        for category, encoded in segments:
            if tuple(encoded["size"]) != size:
                raise ValueError(f"its mask has the size {encoded['size']}, expected {size}")
            labels[run_length.decode(encoded) > 0] = category
        return renumber(labels, values, ignored_values=[0], ignore_label=255)


def plan(root: Path, split: str) -> list[Step]:
    """The images and label maps of a split."""
    source, target = challenge_folder(root, 2010), root / "pascal_ctx_d2"
    json_file = require_file(source / "trainval_merged.json", WHERE_TO_GET)
    content = read_json(json_file, _Detail, "the annotation of PASCAL in Detail")
    images = [entry for entry in content["images"] if entry["phase"] == split]
    segments = defaultdict(list)
    for segment in content["annos_segmentation"]:
        segments[segment["image_id"]].append((segment["category_id"], segment["segmentation"]))
    photographs = source / "JPEGImages"
    maps = []
    for entry in images:
        image = photographs / entry["file_name"]
        size = (entry["height"], entry["width"])
        compute = partial(class_ids, size, segments[entry["image_id"]], image)
        maps.append(LabelMap(label_path(target, "ctx59", split, f"{image.stem}.png"), compute))
    names = [Path(entry["file_name"]).stem for entry in images]
    return [
        copied_images(names, photographs, target, split),
        Files(f"{split} label maps", maps),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
