#!/usr/bin/env python
"""COCO: semantic label maps (8-bit PNG, contiguous ids, 255 = ignore) from the panoptic annotation.

Reads ``coco/annotations/panoptic_{train,val}2017.json`` and ``coco/panoptic_{train,val}2017`` below
the dataset root and writes ``coco/panoptic_semseg_{train,val}2017``.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.semantic_maps import semantic_from_panoptic
from maskclippp.files.images import read_panoptic_ids
from preparation.files import GivenImage, LabelMap
from preparation.steps import Files, GivenImages, Step, run_script

IGNORE_LABEL = 255


def class_ids(panoptic_map: str, segments_info: list[dict[str, Any]]) -> npt.NDArray[np.uint8]:
    """The semantic map [h, w] of one image."""
    ids = read_panoptic_ids(panoptic_map)
    return semantic_from_panoptic(ids, segments_info, IGNORE_LABEL).astype(np.uint8)


def plan(root: Path, split: str) -> list[Step]:
    """The label maps and images of a split."""
    records = coco_panoptic(split).load(root, check_files=False)
    maps = [
        LabelMap(
            Path(record["sem_seg_file_name"]),
            partial(class_ids, record["pan_seg_file_name"], record["segments_info"]),
        )
        for record in records
    ]
    images = [GivenImage(Path(r["file_name"]), Path(r["pan_seg_file_name"])) for r in records]
    return [Files(f"{split} label maps", maps), GivenImages(f"{split} images", images)]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
