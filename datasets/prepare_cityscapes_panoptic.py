#!/usr/bin/env python
"""Cityscapes panoptic (19 classes): panoptic PNGs and JSON, and label maps with train ids.

Reads ``cityscapes/gtFine/{train,val}/*/*_gtFine_{instanceIds,labelIds}.png`` below the dataset root
and writes ``cityscapes/gtFine/cityscapes_panoptic_{train,val}`` with a JSON of the same name, and
``*_gtFine_labelTrainIds.png`` next to the originals: the same files as ``csCreatePanopticImgs`` and
``csCreateTrainIdLabelImgs`` of the package cityscapesscripts. A segment's id is its original
instance id; groups of things, which have no instance id, are crowds.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.files.images import LabelArray, read_label_map
from preparation.files import GivenImage, LabelMap, PanopticMap
from preparation.labels import renumber, segment_entry
from preparation.panoptic import panoptic_content, panoptic_entry
from preparation.steps import (
    AnnotationFile,
    Files,
    GivenImages,
    Step,
    errors_name,
    list_files,
    run_script,
)

WHERE_TO_GET = (
    "unpack gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip from "
    "https://www.cityscapes-dataset.com (free registration) into cityscapes"
)
# Label ids in the order of train ids 0..18; those from 24 on are things.
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
FIRST_THING = 24
NO_CLASS = sorted(set(range(34)) - set(CLASSES))


def train_ids(label_ids: Path) -> npt.NDArray[np.uint8]:
    """Train ids [h, w] of one image, 255 = ignore."""
    labels = read_label_map(label_ids)
    with errors_name(label_ids):
        return renumber(labels, list(CLASSES), ignored_values=NO_CLASS, ignore_label=255)


def label_of(segment_id: int) -> int:
    """The label id of an instance id, which is label * 1000 + number or the label alone."""
    return segment_id // 1000 if segment_id >= 1000 else segment_id


def segment_ids(instance_ids: Path) -> LabelArray:
    """Segment ids [h, w] of one image, 0 where the label is not one of the classes."""
    ids = read_label_map(instance_ids)
    ids[~np.isin(np.where(ids >= 1000, ids // 1000, ids), list(CLASSES))] = 0
    return ids


def describe(instance_ids: Path) -> dict[str, Any]:
    """The JSON's entries of one image."""
    ids = segment_ids(instance_ids)
    name = instance_ids.name.removesuffix("_instanceIds.png")
    segments = []
    for segment in np.unique(ids[ids > 0]).tolist():
        label = label_of(segment)
        is_crowd = segment < 1000 and label >= FIRST_THING
        segments.append(segment_entry(ids == segment, segment, label, is_crowd=is_crowd))
    return panoptic_entry(
        name.removesuffix("_gtFine"),
        ids.shape,
        segments,
        image_file=f"{name}_leftImg8bit.png",  # as cityscapesscripts names it
        map_file=f"{name}_panoptic.png",
    )


def assemble(described: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the JSON."""
    categories = [
        {"id": label, "name": name, "isthing": int(label >= FIRST_THING)}
        for label, name in CLASSES.items()
    ]
    return panoptic_content(described, categories)


def plan(root: Path, split: str) -> list[Step]:
    """PNGs, JSON, label maps and images of a split."""
    base = root / "cityscapes"
    originals = list_files(base / "gtFine" / split, "*/*_gtFine_instanceIds.png", WHERE_TO_GET)
    originals.sort(key=lambda path: path.name)
    folder = base / "gtFine" / f"cityscapes_panoptic_{split}"
    panoptic_maps, label_maps, images = [], [], []
    for original in originals:
        stem = original.name.removesuffix("_gtFine_instanceIds.png")
        panoptic = folder / f"{stem}_gtFine_panoptic.png"
        panoptic_maps.append(PanopticMap(panoptic, partial(segment_ids, original)))
        label_ids = original.with_name(f"{stem}_gtFine_labelIds.png")
        target = original.with_name(f"{stem}_gtFine_labelTrainIds.png")
        label_maps.append(LabelMap(target, partial(train_ids, label_ids)))
        image = base / "leftImg8bit" / split / original.parent.name / f"{stem}_leftImg8bit.png"
        images.append(GivenImage(image, original))
    return [
        Files(f"{split} panoptic maps", panoptic_maps),
        AnnotationFile(
            f"{split} annotation", folder.with_suffix(".json"), originals, describe, assemble
        ),
        Files(f"{split} label maps", label_maps),
        GivenImages(f"{split} images", images),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
