#!/usr/bin/env python
"""ADE20K instances (100 things): a COCO JSON per split.

Reads ``ADEChallengeData2016/annotations_instance/{training,validation}`` below the dataset root
(R = class 1..100, G = number of the instance) and writes
``ADEChallengeData2016/ade20k_instance_{train,val}.json``. Category ids are those of the 150
classes, 0..149; an image's id is its file name without suffix; annotation ids count from 1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.files.images import read_image_size
from maskclippp.masks.run_length import encode_mask
from maskclippp.words import load_class_list
from preparation import ade20k
from preparation.ade20k import Instance
from preparation.labels import bounding_box
from preparation.steps import AnnotationFile, Step, run_script


def describe(original: Path) -> dict[str, Any]:
    """The JSON's entries of one image; :func:`assemble` adds the annotation ids."""
    height, width = read_image_size(original)
    name = original.stem
    return {
        "image": {"id": name, "file_name": f"{name}.jpg", "height": height, "width": width},
        "annotations": [annotation(instance, name) for instance in ade20k.read_instances(original)],
    }


def annotation(instance: Instance, image_id: str) -> dict[str, Any]:
    """The COCO annotation of an instance, with its mask run-length encoded."""
    return {
        "image_id": image_id,
        "category_id": instance.category_id,
        "bbox": bounding_box(instance.mask),
        "area": int(instance.mask.sum()),
        "segmentation": encode_mask(instance.mask),
        "iscrowd": 0,
    }


def assemble(described: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the JSON."""
    classes = load_class_list("ade20k_150")
    annotations = [entry for image in described for entry in image["annotations"]]
    return {
        "images": [image["image"] for image in described],
        "annotations": [{"id": i, **entry} for i, entry in enumerate(annotations, start=1)],
        "categories": [
            {"id": category, "name": classes.classes[category][0]}
            for category in ade20k.thing_categories()
        ],
    }


def plan(root: Path, split: str) -> list[Step]:
    """The JSON of a split, and its images."""
    originals = ade20k.list_instance_maps(root, split)
    target = root / ade20k.FOLDER / f"ade20k_instance_{split}.json"
    return [
        AnnotationFile(f"{split} annotation", target, originals, describe, assemble),
        ade20k.given_images(root, split, originals),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
