"""Importing the package takes no time; names are registered when detectron2 looks them up."""

import subprocess
import sys

import pytest

LOOK_UP = """
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
assert "shapes_val" in DatasetCatalog.list()
assert MetadataCatalog.get("openvocab_ade20k_panoptic_val").stuff_classes
assert "MaskCLIPpp" in META_ARCH_REGISTRY
"""


def run(program: str) -> None:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_alone_imports_nothing_heavy() -> None:
    run(
        "import sys, maskclippp\n"
        "heavy = {'torch', 'numpy', 'detectron2', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


@pytest.mark.parametrize(
    "first",
    [
        "import maskclippp",
        "import maskclippp.registry",
        "import maskclippp.words",
        "import maskclippp, detectron2.modeling, detectron2.data",
    ],
)
def test_detectron2_knows_all_names_after_the_import(first: str) -> None:
    run(first + LOOK_UP)


def test_a_loaded_detectron2_learns_the_names_at_once() -> None:
    run(
        "import maskclippp.detectron2_engine as engine\n"
        "import detectron2.data\n"
        "done = []\n"
        "engine.call_after_import('detectron2.data', lambda: done.append(1))\n"
        "assert done"
    )


def test_wandb_is_imported_by_those_who_use_it() -> None:
    run(
        "import sys, maskclippp.engine\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'wandb']\n"
        "import wandb\n"
        "wandb.init"
    )
