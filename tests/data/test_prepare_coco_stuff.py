"""The script for COCO-Stuff numbers the 171 used categories without gaps."""

from pathlib import Path

import numpy as np
import pytest

from maskclippp.words import load_class_list
from tests.data.original_layouts import STEMS, make_coco_stuff
from tests.data.preparation_runs import load_script, pixels, run_process

# Values of the original; 11 and 90 are things that nobody annotated (street sign, hair brush).
CLASSES = {0: 0, 10: 10, 11: 255, 12: 11, 90: 255, 181: 170, 255: 255}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco_stuff")
    make_coco_stuff(root)
    run_process("prepare_coco_stuff_sem_seg", root)
    return root / "coco"


@pytest.mark.parametrize(("split", "stem"), [(s, stem) for s in STEMS for stem in STEMS[s]])
def test_values_become_contiguous(coco: Path, split: str, stem: str) -> None:
    file = Path(f"{split}2017") / f"{int(stem):012d}.png"
    original = pixels(coco / "stuffthingmaps" / file)
    made = pixels(coco / "stuffthingmaps_detectron2" / file)
    assert (made == np.vectorize(CLASSES.get)(original)).all()


def test_classes_are_those_of_the_registered_dataset() -> None:
    values = load_script("prepare_coco_stuff_sem_seg").CLASS_VALUES
    assert len(values) == 171
    assert tuple(value + 1 for value in values) == load_class_list("coco_stuff_171").ids
