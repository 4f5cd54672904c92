#!/usr/bin/env python
"""PASCAL Context with 459 classes: 16-bit label maps with ids 0..458, 65535 = ignore.

Reads ``VOCdevkit/VOC2010/trainval/*.mat`` (or ``VOC2010/...``; array ``LabelMap``, 0 = none,
1..459 = class) below the dataset root, for the images that ``prepare_pascal_ctx_sem_seg.py`` put
into ``pascal_ctx_d2/images``, and writes ``pascal_ctx_d2/annotations_ctx459`` (TIFF).
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.data.layout import SPLIT_FOLDERS
from preparation.files import GivenImage, LabelMap
from preparation.labels import renumber
from preparation.pascal import challenge_folder, label_path
from preparation.steps import (
    Files,
    GivenImages,
    Step,
    errors_name,
    list_files,
    require_file,
    run_script,
)

WHERE_TO_GET = (
    "unpack trainval.tar.gz, the annotations of https://cs.stanford.edu/~roozbeh/pascal-context/, "
    "into VOC2010, next to JPEGImages"
)
IMAGES_FIRST = "run prepare_pascal_ctx_sem_seg.py first, which copies the images"


def class_ids(original: Path) -> npt.NDArray[np.uint16]:
    """The label map [h, w] of one image."""
    with errors_name(require_file(original, WHERE_TO_GET)):
        labels = read_matlab_labels(original)
        return renumber(labels, range(1, 460), ignored_values=[0], ignore_label=65535)


def read_matlab_labels(path: Path) -> npt.NDArray[np.int32]:
    """The array ``LabelMap`` [h, w] of a MATLAB file; a ValueError if there is none."""
    try:
        content = loadmat(path, variable_names=["LabelMap"])
    except (MatReadError, NotImplementedError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"is not a readable MATLAB 5 file: {error}") from error
    if "LabelMap" not in content or content["LabelMap"].ndim != 2:
        raise ValueError("has no matrix LabelMap")
    return np.asarray(content["LabelMap"], np.int32)


def plan(root: Path, split: str) -> list[Step]:
    """The label maps and images of a split."""
    source, target = challenge_folder(root, 2010), root / "pascal_ctx_d2"
    images = list_files(target / "images" / SPLIT_FOLDERS[split], "*.jpg", IMAGES_FIRST)
    targets = [label_path(target, "ctx459", split, f"{image.stem}.tif") for image in images]
    maps = [
        LabelMap(path, partial(class_ids, source / "trainval" / f"{path.stem}.mat"))
        for path in targets
    ]
    pairs = [GivenImage(image, path) for image, path in zip(images, targets, strict=True)]
    return [Files(f"{split} label maps", maps), GivenImages(f"{split} images", pairs)]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
