"""Metadata that are computed when they are first asked for."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from detectron2.data import MetadataCatalog

from maskclippp.data.lazy_metadata import register_metadata
from tests.golden_cases import REPOSITORY

NAME = "test_lazy_metadata"


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """Grows by one entry whenever the metadata are computed."""
    computed: list[str] = []

    def compute() -> dict[str, Any]:
        computed.append(NAME)
        return {"stuff_classes": ["cat", "dog"], "ignore_label": 255}

    register_metadata(NAME, compute)
    yield computed
    MetadataCatalog.remove(NAME)


def test_nothing_is_computed_for_a_name(calls: list[str]) -> None:
    assert MetadataCatalog.get(NAME).name == NAME
    assert calls == []


def test_attributes_are_computed_once(calls: list[str]) -> None:
    metadata = MetadataCatalog.get(NAME)
    assert metadata.stuff_classes == ["cat", "dog"]
    assert metadata.get("ignore_label") == 255
    assert metadata.get("absent", "default") == "default"
    assert calls == [NAME]


def test_all_attributes_are_listed(calls: list[str]) -> None:
    expected = {"name": NAME, "stuff_classes": ["cat", "dog"], "ignore_label": 255}
    assert MetadataCatalog.get(NAME).as_dict() == expected


def test_unknown_attribute_names_the_known_ones(calls: list[str]) -> None:
    with pytest.raises(AttributeError, match="stuff_classes"):
        _ = MetadataCatalog.get(NAME).absent


def test_attributes_can_be_added_but_not_changed(calls: list[str]) -> None:
    metadata = MetadataCatalog.get(NAME)
    metadata.set(added=1, ignore_label=255)
    with pytest.raises(AssertionError, match="ignore_label"):
        metadata.ignore_label = 0
    assert (metadata.added, metadata.ignore_label) == (1, 255)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_complete(copied: Any, calls: list[str]) -> None:
    metadata = MetadataCatalog.get(NAME)
    assert copied(metadata).as_dict() == metadata.as_dict()


def test_import_reads_no_class_list() -> None:
    script = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0])))\n"
        "import maskclippp.data\n"
        "print([name for name in opened if name.endswith('.tsv')])\n"
    )
    search_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
