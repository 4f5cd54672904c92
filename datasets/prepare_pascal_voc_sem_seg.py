#!/usr/bin/env python
"""PASCAL VOC 2012: images, and label maps with 20 classes and with 21 (with background).

Reads ``VOCdevkit/VOC2012`` (or ``VOC2012``) below the dataset root, for the images listed in
``ImageSets/Segmentation/{train,val}.txt``, and writes ``pascal_voc_d2``: ``images``,
``annotations_pascal21`` (the original values: 0 = background, 255 = border) and
``annotations_pascal20`` (objects 0..19, background and border 255).
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.files.images import read_label_map
from preparation.files import LabelMap
from preparation.labels import renumber
from preparation.pascal import challenge_folder, copied_images, label_path
from preparation.steps import Files, Step, errors_name, require_file, run_script

WHERE_TO_GET = (
    "unpack VOCtrainval_11-May-2012.tar (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/) into the "
    "root of all datasets"
)
BORDER = 255


def class_ids(original: Path, first_class: int) -> npt.NDArray[np.uint8]:
    """The label map [h, w] of one image, whose class 0 has the original value ``first_class``."""
    ignored = [*range(first_class), BORDER]
    labels, values = read_label_map(original), range(first_class, 21)
    with errors_name(original):
        return renumber(labels, values, ignored_values=ignored, ignore_label=255)


def plan(root: Path, split: str) -> list[Step]:
    """The images and both kinds of label maps of a split."""
    source, target = challenge_folder(root, 2012), root / "pascal_voc_d2"
    listing = require_file(source / "ImageSets" / "Segmentation" / f"{split}.txt", WHERE_TO_GET)
    names = listing.read_text(encoding="utf-8").split()
    steps: list[Step] = [copied_images(names, source / "JPEGImages", target, split)]
    for kind, first_class in (("pascal20", 1), ("pascal21", 0)):
        maps = [
            LabelMap(
                label_path(target, kind, split, f"{name}.png"),
                partial(class_ids, source / "SegmentationClass" / f"{name}.png", first_class),
            )
            for name in names
        ]
        steps.append(Files(f"{split} {kind} label maps", maps))
    return steps


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
