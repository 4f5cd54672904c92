#!/usr/bin/env python
"""Full ADE20K (847 classes): smaller images, and 16-bit label maps with ids 0..846.

Reads ``ADE20K_2021_17_01/index_ade20k.pkl`` below the dataset root and the images that it lists
with their ``_seg.png`` (class number = R // 10 * 256 + G); writes ``images_detectron2`` (JPEG) and
``annotations_detectron2`` (TIFF, 65535 = ignore) next to the index. Where both sides exceed 512
pixels, the shorter one is resized to 512: bilinear for images, nearest neighbor for labels. Reading
the index takes 1 GB of memory.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.data.layout import SPLIT_FOLDERS
from maskclippp.files.images import check_same_size, read_panoptic_ids
from maskclippp.words import load_class_list
from preparation.ade20k_index import read_image_paths
from preparation.files import LabelMap, ShrunkenImage, shrink_labels, stored_size
from preparation.labels import renumber
from preparation.steps import Files, Step, run_script

FOLDER = "ADE20K_2021_17_01"
SHORT_SIDE = 512


def class_ids(image: Path) -> npt.NDArray[np.uint16]:
    """The label map [h, w] of one image, resized like the image."""
    original = image.with_name(f"{image.stem}_seg.png")
    colors = read_panoptic_ids(original)
    numbers = (colors & 255) // 10 * 256 + (colors >> 8 & 255)
    class_numbers = list(load_class_list("ade20k_847").ids)
    labels = renumber(numbers, class_numbers, ignored_values=None, ignore_label=65535)
    check_same_size(labels.shape, original, stored_size(image), image)
    return shrink_labels(labels, SHORT_SIDE)


def split_of(image: Path) -> str:
    """``train`` or ``val``, from a name such as ``ADE_val_00000001.jpg``."""
    return "val" if image.name.split("_")[1] == "val" else "train"


def plan(root: Path, split: str) -> list[Step]:
    """The images and label maps of a split."""
    listed = read_image_paths(root / FOLDER / "index_ade20k.pkl")
    originals = [root / path for path in listed if split_of(path) == split]
    images = root / FOLDER / "images_detectron2" / SPLIT_FOLDERS[split]
    labels = root / FOLDER / "annotations_detectron2" / SPLIT_FOLDERS[split]
    return [
        Files(
            f"{split} images",
            [ShrunkenImage(images / path.name, path, SHORT_SIDE) for path in originals],
        ),
        Files(
            f"{split} label maps",
            [LabelMap(labels / f"{path.stem}.tif", partial(class_ids, path)) for path in originals],
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
