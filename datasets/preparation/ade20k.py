"""The originals of ADE20K's scene parsing and instance benchmarks (``ADEChallengeData2016``)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maskclippp.data.layout import SPLIT_FOLDERS
from maskclippp.errors import InputError
from maskclippp.files.images import read_label_map, read_panoptic_ids
from maskclippp.words import load_class_list
from preparation.files import GivenImage
from preparation.labels import renumber
from preparation.steps import GivenImages, errors_name, list_files

FOLDER = "ADEChallengeData2016"
_SCENES = (
    "unpack ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu into the root of all "
    "datasets"
)
_INSTANCES = (
    "unpack annotations_instance.tar (https://github.com/CSAILVision/placeschallenge, "
    f"instancesegmentation) into {FOLDER}"
)


class Instance(NamedTuple):
    """An object: its number in the image (1..255), class (0..149) and mask [h, w]."""

    number: int
    category_id: int
    mask: npt.NDArray[np.bool_]


def list_semantic_maps(root: Path, split: str) -> list[Path]:
    """The scene parsing PNGs of a split; a MissingFileError says where to get them."""
    return list_files(root / FOLDER / "annotations" / SPLIT_FOLDERS[split], "*.png", _SCENES)


def list_instance_maps(root: Path, split: str) -> list[Path]:
    """The instance PNGs of a split; a MissingFileError says where to get them."""
    folder = root / FOLDER / "annotations_instance" / SPLIT_FOLDERS[split]
    return list_files(folder, "*.png", _INSTANCES)


def given_images(root: Path, split: str, label_maps: Sequence[Path]) -> GivenImages:
    """The images of these label maps."""
    folder = root / FOLDER / "images" / SPLIT_FOLDERS[split]
    images = [GivenImage(folder / f"{labels.stem}.jpg", labels) for labels in label_maps]
    return GivenImages(f"{split} images", images)


def read_classes(path: Path) -> npt.NDArray[np.uint8]:
    """Classes 0..149 of a scene parsing PNG [h, w]; its value 0, "other", becomes 255."""
    labels = read_label_map(path)
    with errors_name(path):
        return renumber(labels, range(1, 151), ignored_values=[0], ignore_label=255)


def thing_categories() -> list[int]:
    """The classes (0..149) of the instance classes 1..100.

    The instance benchmark numbers the things in the order of the 150 classes (categoryMapping.txt).
    """
    classes = load_class_list("ade20k_150")
    return [index for index, is_thing in enumerate(classes.is_thing) if is_thing]


def read_instances(path: Path) -> list[Instance]:
    """The instances in an instance PNG (R = class 1..100, G = number), by number.

    Raises:
        MissingFileError, UnreadableFileError: as :func:`read_panoptic_ids`.
        InputError: a class is not a thing, or an instance has two classes; names the file.
    """
    colors = read_panoptic_ids(path)
    classes, numbers = colors & 255, colors >> 8 & 255
    things = thing_categories()
    instances = []
    for number in np.unique(numbers[numbers > 0]):
        mask = numbers == number
        found = np.unique(classes[mask])
        if len(found) > 1 or not 1 <= found[0] <= len(things):
            raise InputError(
                f"{path}: instance {number} has the classes {found.tolist()}, expected one of "
                f"1..{len(things)}"
            )
        instances.append(Instance(int(number), things[found[0] - 1], mask))
    return instances
