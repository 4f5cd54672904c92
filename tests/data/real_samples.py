"""Real COCO images and what was recorded on them: beside the project, never part of it.

A lone clone has neither; tests then run on drawn datasets alone.
"""

import json
import os
from pathlib import Path
from typing import Any

from maskclippp.data.builtin import coco_panoptic
from tests.golden_cases import REPOSITORY, golden_root


def find_samples() -> Path | None:
    """The dataset root with the two real images, if it is there.

    It is ``$MASKCLIPPP_SAMPLES``/coco_panoptic, or below ``samples`` beside the golden cases.
    """
    folders = [golden_root().parent / "samples", REPOSITORY.parent / "shared" / "samples"]
    if "MASKCLIPPP_SAMPLES" in os.environ:
        folders = [Path(os.environ["MASKCLIPPP_SAMPLES"]).expanduser()]
    return next((f / "coco_panoptic" for f in folders if (f / "coco_panoptic").is_dir()), None)


def sample_root() -> Path:
    """The dataset root with the two real images; FileNotFoundError without them."""
    root = find_samples()
    if root is None:
        raise FileNotFoundError(
            "recorded cases on COCO images need samples/coco_panoptic beside them"
        )
    return root


def sample_records() -> list[dict[str, Any]]:
    """Records of the real images."""
    return coco_panoptic("val").load(sample_root())


def mapper_cases() -> list[tuple[Path, dict[str, Any]]]:
    """(folder, case.json) of the recorded mapper runs; empty in a lone clone."""
    files = sorted(golden_root().glob("data_mappers*/case.json"))
    return [(file.parent, json.loads(file.read_text())) for file in files]


def recorded_semantic_maps() -> list[Path]:
    """Recorded conversions of the real images' panoptic maps; empty in a lone clone."""
    return sorted(golden_root().glob("prepare_coco_semseg*/coco/panoptic_semseg_*/*.png"))
