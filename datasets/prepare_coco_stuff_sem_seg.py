#!/usr/bin/env python
"""COCO-Stuff (171 classes): label maps with contiguous ids, 255 = ignore.

Reads ``coco/stuffthingmaps/{train,val}2017`` below the dataset root (8-bit PNG, value = category id
- 1, 255 = unlabeled) and writes ``coco/stuffthingmaps_detectron2/{train,val}2017``.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.files.images import read_label_map
from preparation.files import GivenImage, LabelMap
from preparation.labels import renumber
from preparation.steps import (
    Files,
    GivenImages,
    Step,
    errors_name,
    list_files,
    run_script,
)

WHERE_TO_GET = (
    "unpack stuffthingmaps_trainval2017.zip (https://github.com/nightrome/cocostuff#downloads) "
    "into coco/stuffthingmaps"
)
# Things that COCO lists but never annotated: street sign, hat, shoe, eye glasses, plate, mirror,
# window, desk, door, blender, hair brush.
UNUSED_CATEGORIES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
CLASS_VALUES = [c - 1 for c in range(1, 183) if c not in UNUSED_CATEGORIES]
IGNORED_VALUES = [*(c - 1 for c in UNUSED_CATEGORIES), 255]


def class_ids(original: Path) -> npt.NDArray[np.uint8]:
    """The label map [h, w] of one image; unused categories are ignored."""
    labels = read_label_map(original)
    with errors_name(original):
        return renumber(labels, CLASS_VALUES, ignored_values=IGNORED_VALUES, ignore_label=255)


def plan(root: Path, split: str) -> list[Step]:
    """The label maps and images of a split."""
    coco, folder = root / "coco", f"{split}2017"
    originals = list_files(coco / "stuffthingmaps" / folder, "*.png", WHERE_TO_GET)
    maps = [
        LabelMap(coco / "stuffthingmaps_detectron2" / folder / path.name, partial(class_ids, path))
        for path in originals
    ]
    images = [GivenImage(coco / folder / f"{path.stem}.jpg", path) for path in originals]
    return [Files(f"{split} label maps", maps), GivenImages(f"{split} images", images)]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
