#!/usr/bin/env python
"""ADE20K (150 classes): label maps with class ids 0..149, 255 = ignore.

Reads ``ADEChallengeData2016/annotations/{training,validation}`` below the dataset root (0 = other,
1..150 = class) and writes ``ADEChallengeData2016/annotations_detectron2``.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from maskclippp.data.layout import SPLIT_FOLDERS
from preparation import ade20k
from preparation.files import LabelMap
from preparation.steps import Files, Step, run_script


def plan(root: Path, split: str) -> list[Step]:
    """The label maps and images of a split."""
    originals = ade20k.list_semantic_maps(root, split)
    folder = root / ade20k.FOLDER / "annotations_detectron2"
    targets = [folder / SPLIT_FOLDERS[split] / path.name for path in originals]
    maps = [
        LabelMap(target, partial(ade20k.read_classes, original))
        for target, original in zip(targets, originals, strict=True)
    ]
    return [
        Files(f"{split} label maps", maps),
        ade20k.given_images(root, split, originals),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script(__doc__, plan, arguments)


if __name__ == "__main__":
    sys.exit(main())
