"""Mutated annotation works or is refused as the user's mistake: never a traceback."""

import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskclippp.data.custom import register_custom_datasets
from maskclippp.data.mappers.objects import ObjectTarget
from maskclippp.data.mappers.targets import SegmentTarget
from maskclippp.errors import InputError
from maskclippp.evaluation import GroundTruth
from tests.data.test_coco_json import instances, panoptic

NAME = "fuzz_for_tests"
GOOD = {"coco_panoptic": panoptic(), "coco_instances": instances()}
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["../a", "/a", "1", "a\0b", [], {}, [[]], [{}], ...]),
    st.lists(st.integers(-1, 300), max_size=8),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("fuzz")
    (root / "maps").mkdir()
    ids = np.zeros((20, 30, 3), np.uint8)
    ids[:10, :, 0], ids[10:, :, 0] = 1, 2
    for name in (7, 8):
        Image.new("RGB", (30, 20)).save(root / f"{name}.jpg")
        Image.fromarray(ids).save(root / f"maps/{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKCLIPPP_CACHE", str(root / "cache"))
        logging.disable(logging.CRITICAL)
        yield root
        logging.disable(logging.NOTSET)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*place, key)
        if isinstance(child, dict | list):
            yield from places(child, (*place, key))


def mutated(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    entry = content
    for step in place[:-1]:
        entry = entry[step]
    if value is ...:
        del entry[place[-1]]
    else:
        entry[place[-1]] = value
    return content


def use(kind: str, root: Path) -> None:
    """Load the records and read their annotation as training and evaluation do."""
    paths = {"images": str(root), "annotations": str(root / "a.json")}
    maps = {"panoptic_maps": str(root / "maps")} if kind == "coco_panoptic" else {}
    register_custom_datasets([{"name": NAME, "kind": kind, **paths, **maps}])
    for record in DatasetCatalog.get(NAME):
        if kind == "coco_panoptic":
            SegmentTarget()(record, (20, 30))
            GroundTruth(NAME).semantic_labels(record)
        else:
            ObjectTarget(drop_empty=False)(record, (20, 30))


@pytest.mark.parametrize("kind", GOOD)
def test_the_annotation_that_is_mutated_works(kind: str, root: Path) -> None:
    (root / "a.json").write_text(json.dumps(GOOD[kind]))
    use(kind, root)


@pytest.mark.parametrize("kind", GOOD)
@settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutations_work_or_are_refused(kind: str, root: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(list(places(GOOD[kind]))), "place")
    content = json.dumps(mutated(GOOD[kind], place, data.draw(WRONG, "value"))).encode()
    if data.draw(st.integers(0, 9), "cut or not") == 0:
        content = content[: data.draw(st.integers(0, len(content)), "length")]
    (root / "a.json").write_bytes(content)
    message = ""
    try:
        use(kind, root)
    except InputError as error:
        message = str(error)
    assert not message or str(root) in message
