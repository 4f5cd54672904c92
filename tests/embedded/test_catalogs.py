"""DatasetCatalog and MetadataCatalog: every golden behavior."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.golden_cases import cases

ITEMS = [item for case in cases("engine_catalogs") for item in case.info["cases"]]
NAME = "golden_catalog_case"
ERRORS = {error.__name__: error for error in (AssertionError, AttributeError, KeyError)}


@pytest.fixture(autouse=True)
def _clean_catalogs() -> Iterator[None]:
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [name for name in catalog if name.startswith(NAME)]:
            catalog.pop(name)


def register_twice() -> None:
    DatasetCatalog.register(NAME, lambda: [1])
    DatasetCatalog.register(NAME, lambda: [2])


def remove_and_register_again() -> Any:
    DatasetCatalog.register(NAME, lambda: [1])
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [2])
    return DatasetCatalog.get(NAME)


def get_twice() -> bool:
    DatasetCatalog.register(NAME, lambda: [object()])
    return DatasetCatalog.get(NAME) is not DatasetCatalog.get(NAME)


def set_to_another_value() -> None:
    metadata = MetadataCatalog.get(NAME)
    metadata.thing_classes = ["a"]
    metadata.thing_classes = ["a"]
    metadata.thing_classes = ["b"]


def set_tuple_then_list() -> None:
    metadata = MetadataCatalog.get(f"{NAME}_eq")
    metadata.x = (1, 2)
    metadata.x = [1, 2]


def read_unknown() -> Any:
    return MetadataCatalog.get(NAME).set(known=1).nope


def copy_as_dict() -> dict[str, Any]:
    metadata = MetadataCatalog.get(f"{NAME}_d").set(value=1)
    copy = metadata.as_dict()
    copy["value"] = 2
    return {"name_included": copy["name"], "unchanged": metadata.value}


def old_attribute_name() -> Any:
    return MetadataCatalog.get(NAME).set(thing_classes=["x"]).class_names


def behaves_as_dict() -> list[bool]:
    DatasetCatalog.register(NAME, lambda: [1])
    DatasetCatalog.register(f"{NAME}_2", lambda: [1])
    names = DatasetCatalog.list()
    return [
        NAME in DatasetCatalog and len(DatasetCatalog) == len(names),
        names.index(NAME) < names.index(f"{NAME}_2"),
    ]


BEHAVIORS: dict[str, Callable[[], Any]] = {
    "register the same dataset name twice": register_twice,
    "register something that is not callable": lambda: DatasetCatalog.register(NAME, [1]),
    "get of an unknown dataset name": lambda: DatasetCatalog.get("no_such_dataset"),
    "remove, then register again": remove_and_register_again,
    "get calls the function anew each time": get_twice,
    "metadata: get of an unknown name creates an empty entry with attribute name": (
        lambda: MetadataCatalog.get(f"{NAME}_new").name
    ),
    "metadata: get twice gives the same object": (
        lambda: MetadataCatalog.get(NAME) is MetadataCatalog.get(NAME)
    ),
    "metadata: set to an equal value is allowed, to another value is an error": (
        set_to_another_value
    ),
    "metadata: tuple (1,2) then list [1,2] counts as another value": set_tuple_then_list,
    "metadata: read of an unknown attribute (entry has others)": read_unknown,
    "metadata: read of an unknown attribute (empty entry)": (
        lambda: MetadataCatalog.get(f"{NAME}_new2").nope
    ),
    "metadata: .get(key, default) on an unknown attribute": (
        lambda: MetadataCatalog.get(NAME).get("nope", 4)
    ),
    "metadata: hasattr on an unknown attribute": (
        lambda: hasattr(MetadataCatalog.get(NAME), "nope")
    ),
    "metadata: set returns the object (chaining)": lambda: MetadataCatalog.get(NAME).set(v=1).v,
    "metadata: as_dict is a shallow copy": copy_as_dict,
    "metadata: old attribute name class_names reads thing_classes": old_attribute_name,
    "metadata: get of an empty name": lambda: MetadataCatalog.get(""),
    "metadata: remove of an unknown name": lambda: MetadataCatalog.remove("zzz"),
    "'in' and len work like a dict; list() gives the names in registration order": behaves_as_dict,
}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["case"])
def test_catalogs_behave_as_the_golden_case_says(item: dict[str, Any]) -> None:
    behavior = BEHAVIORS[item["case"]]
    if "error" in item:
        with pytest.raises(ERRORS[item["error"]]) as caught:
            behavior()
        assert item["message_start"] in str(caught.value)[: len(item["message_start"])] + " "
    else:
        assert behavior() == item["ok"]


def test_an_unknown_dataset_is_reported_with_those_that_exist() -> None:
    DatasetCatalog.register(NAME, lambda: [1])
    with pytest.raises(KeyError, match=NAME):
        DatasetCatalog.get("no_such_dataset")
