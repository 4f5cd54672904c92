"""MESS datasets come from the package ``mess-benchmark``, which has two ways to register.

Where it finds all of detectron2 it writes into detectron2's catalogs, else into catalogs of its
own. The packages here are such as its version 0.2, with one dataset each.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden_cases import REPOSITORY

OWN_CATALOGS = """
class Metadata:
    def __init__(self, name):
        self.name = name
    def set(self, **attributes):
        self.__dict__.update(attributes)
    def as_dict(self):
        return dict(self.__dict__)

class Datasets(dict):
    def register(self, name, function):
        self[name] = function
    def list(self):
        return list(self)

class AllMetadata(dict):
    def get(self, name):
        return self.setdefault(name, Metadata(name))

DatasetCatalog, MetadataCatalog = Datasets(), AllMetadata()
"""
REGISTRATION = """
from {catalogs} import DatasetCatalog, MetadataCatalog
DatasetCatalog.register("tiny_sem_seg_test", lambda: [dict(file_name="a.jpg")])
MetadataCatalog.get("tiny_sem_seg_test").set(
    stuff_classes=("background", "crack"), evaluator_type="sem_seg", ignore_label=255
)
"""
REPORT = """
import logging
logging.basicConfig(format="%(message)s")
import maskclippp
from detectron2.data import DatasetCatalog, MetadataCatalog
names = [name for name in DatasetCatalog.list() if name.startswith("tiny")]
print(names, [(DatasetCatalog.get(n), MetadataCatalog.get(n).stuff_classes) for n in names])
"""
TINY = "['tiny_sem_seg_test'] [([{'file_name': 'a.jpg'}], ('background', 'crack'))]"


def run(folder: Path) -> tuple[str, str]:
    """The last line that a program prints which has ``folder`` on its path, and its warnings."""
    search_path = os.pathsep.join([str(REPOSITORY), str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1], done.stderr


def package(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("catalogs", ["detectron2.data", "mess.utils.catalog"])
def test_names_are_registered_in_either_way(catalogs: str, tmp_path: Path) -> None:
    files = {
        "mess/__init__.py": "",
        "mess/datasets/__init__.py": REGISTRATION.format(catalogs=catalogs),
        "mess/utils/__init__.py": "",
        "mess/utils/catalog.py": OWN_CATALOGS,
    }
    assert run(package(tmp_path, files))[0] == TINY


def test_another_package_of_that_name_is_said_and_harmless(tmp_path: Path) -> None:
    printed, warnings = run(package(tmp_path, {"mess/__init__.py": ""}))
    assert printed == "[] []"
    assert "pip install mess-benchmark" in warnings


def test_a_folder_of_that_name_is_no_package(tmp_path: Path) -> None:
    printed, warnings = run(package(tmp_path, {"mess/notes.txt": ""}))
    assert printed == "[] []"
    assert "mess" not in warnings
