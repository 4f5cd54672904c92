#!/usr/bin/env python
"""COCO: semantic label maps (8-bit PNG, contiguous ids, 255 = ignore) from the panoptic annotation.

Reads ``coco/annotations/panoptic_{train,val}2017.json`` and ``coco/panoptic_{train,val}2017`` below
the dataset root and writes ``coco/panoptic_semseg_{train,val}2017``. Existing files are kept, so an
interrupted run continues where it stopped.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import maskclippp  # noqa: F401  (makes detectron2 importable)
from maskclippp.data.coco_panoptic import SPLITS, coco_panoptic
from maskclippp.data.files import read_label_map, read_panoptic_ids
from maskclippp.data.panoptic import datasets_root, load_panoptic_records
from maskclippp.data.preparation import map_in_processes, write_png
from maskclippp.data.semantic_maps import semantic_from_panoptic

LOGGER = logging.getLogger("prepare")
IGNORE_LABEL = 255


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=Path, default=datasets_root(), help="default: $DETECTRON2_DATASETS, datasets"
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=["val", "train"])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, compare what is there with the source"
    )
    return parser.parse_args(arguments)


def convert(record: dict[str, Any]) -> None:
    """Write the semantic map of one image."""
    ids = read_panoptic_ids(record["pan_seg_file_name"])
    labels = semantic_from_panoptic(ids, record["segments_info"], IGNORE_LABEL)
    write_png(Path(record["sem_seg_file_name"]), labels.astype("uint8"))


def find_fault(record: dict[str, Any]) -> str | None:
    """What is wrong with the semantic map of one image, if anything."""
    try:
        labels = read_label_map(record["sem_seg_file_name"])
        ids = read_panoptic_ids(record["pan_seg_file_name"])
    except (OSError, ValueError) as error:
        return str(error)
    expected = semantic_from_panoptic(ids, record["segments_info"], IGNORE_LABEL)
    if labels.shape != expected.shape:
        return f"{record['sem_seg_file_name']}: size {labels.shape}, expected {expected.shape}"
    if (labels != expected).any():
        return f"{record['sem_seg_file_name']}: differs from the panoptic annotation"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse_arguments(arguments)
    faulty = False
    for split in options.splits:
        dataset = coco_panoptic(split)
        try:
            records = load_panoptic_records(dataset, options.root, check_files=False)
        except (FileNotFoundError, ValueError) as error:
            LOGGER.error("%s\n(--splits chooses what to prepare)", error)
            return 1
        if options.check:
            found = map_in_processes(find_fault, records, options.workers, f"check {split}")
            faults = [fault for fault in found if fault is not None]
            for fault in faults[:10]:
                LOGGER.error("%s", fault)
            LOGGER.info(
                "%s: %d of %d files are right", split, len(records) - len(faults), len(records)
            )
            faulty = faulty or bool(faults)
        else:
            todo = [r for r in records if not Path(r["sem_seg_file_name"]).is_file()]
            LOGGER.info(
                "%s: %d of %d files are there", split, len(records) - len(todo), len(records)
            )
            map_in_processes(convert, todo, options.workers, f"convert {split}")
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
