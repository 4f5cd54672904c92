#!/usr/bin/env python
"""ADE20K panoptic (100 things, 50 stuff classes): PNGs and a COCO panoptic JSON per split.

Reads ``ADEChallengeData2016/annotations`` and ``annotations_instance`` below the dataset root and
writes ``ADEChallengeData2016/ade20k_panoptic_{train,val}`` and a JSON of the same name.

Stuff comes from the semantic map; instances are painted over it. Pixels of a thing class without an
instance belong to no segment. As in the published annotation, area and box of a stuff segment are
measured before things are painted over it, and it is listed even if nothing of it remains visible:
the panoptic metric reads the areas in the JSON, so its results depend on them. Segment ids are
1000 * (class + 1) + instance number, which is 0 for stuff; the published ones are random.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.files.images import LabelArray, check_same_size
from maskclippp.words import load_class_list
from preparation import ade20k
from preparation.files import PanopticMap
from preparation.labels import segment_entry
from preparation.panoptic import panoptic_content, panoptic_entry
from preparation.steps import AnnotationFile, Files, Step, run_script


class Originals(NamedTuple):
    """The two PNGs of an image."""

    semantic: Path
    instances: Path


def merge(originals: Originals) -> tuple[LabelArray, list[dict[str, Any]]]:
    """Segment ids [h, w] and the JSON's list of segments of one image."""
    classes = ade20k.read_classes(originals.semantic)
    instances = ade20k.read_instances(originals.instances)
    ids = np.zeros(classes.shape, np.int32)
    segments = []
    stuff = set(range(150)) - set(ade20k.thing_categories())
    for category in sorted(stuff & set(np.unique(classes).tolist())):
        mask = classes == category
        segments.append(segment_entry(mask, 1000 * (category + 1), category))
        ids[mask] = segments[-1]["id"]
    for number, category, mask in instances:
        check_same_size(mask.shape, originals.instances, classes.shape, originals.semantic)
        segments.append(segment_entry(mask, 1000 * (category + 1) + number, category))
        ids[mask] = segments[-1]["id"]
    return ids, segments


def segment_ids(originals: Originals) -> LabelArray:
    """Segment ids [h, w] of one image."""
    return merge(originals)[0]


def describe(originals: Originals) -> dict[str, Any]:
    """The JSON's entries of one image."""
    ids, segments = merge(originals)
    name = originals.semantic.stem
    return panoptic_entry(
        name, ids.shape, segments, image_file=f"{name}.jpg", map_file=f"{name}.png"
    )


def assemble(described: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the JSON."""
    classes = load_class_list("ade20k_150")
    categories = [
        {
            "id": index,
            "name": synonyms[0],
            "isthing": int(classes.is_thing[index]),
            "color": list(classes.colors[index]),
        }
        for index, synonyms in enumerate(classes.classes)
    ]
    return panoptic_content(described, categories)


def plan(root: Path, split: str) -> list[Step]:
    """The PNGs and the JSON of a split, and its images."""
    semantic_maps = ade20k.list_semantic_maps(root, split)
    instance_folder = ade20k.list_instance_maps(root, split)[0].parent
    originals = [Originals(path, instance_folder / path.name) for path in semantic_maps]
    folder = root / ade20k.FOLDER / f"ade20k_panoptic_{split}"
    maps = [PanopticMap(folder / o.semantic.name, partial(segment_ids, o)) for o in originals]
    return [
        Files(f"{split} panoptic maps", maps),
        AnnotationFile(
            f"{split} annotation", folder.with_suffix(".json"), originals, describe, assemble
        ),
        ade20k.given_images(root, split, semantic_maps),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
