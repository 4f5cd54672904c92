"""Datasets from the entries of builtin.yaml and DATASETS.CUSTOM.

The keys of an entry are ``kind`` and the fields of the dataset class of that kind.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from maskclippp.data.dataset import Dataset
from maskclippp.data.image_folder import ImageDataset
from maskclippp.data.instances import InstanceDataset
from maskclippp.data.panoptic import PanopticDataset
from maskclippp.data.semantic import SemanticDataset
from maskclippp.errors import InputError

_KINDS: Mapping[str, type[Dataset]] = {
    "coco_panoptic": PanopticDataset,
    "images": ImageDataset,
    "index_png": SemanticDataset,
    "coco_instances": InstanceDataset,
}
_REQUIRED = ("name", "kind", "images", "annotations")
_REQUIRED_OF = {"index_png": (*_REQUIRED, "words"), "images": ("name", "kind", "images", "words")}
_DERIVED = ("values",)  # computed from other keys


def check_entry(entry: Any, place: str) -> None:
    """Check an entry as written by a user.

    Raises:
        InputError: the entry is not a mapping; its kind or one of its keys is unknown; a required
            key is missing; a value has the wrong type. The message begins with ``place``.
    """
    if not isinstance(entry, Mapping):
        raise InputError(
            f"{place}: expected a mapping with name, kind, images and annotations, found {entry!r}"
        )
    kind = entry.get("kind", "")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"{place}: kind must be one of {sorted(_KINDS)}, found {kind!r}")
    if "suffix" in entry:
        raise InputError(f"{place}: the key suffix is now label_suffix")
    types = {field.name: field.type for field in dataclasses.fields(_KINDS[kind])}
    valid = ["kind", *(name for name in types if name not in _DERIVED)]
    for key in entry:
        if key not in valid:
            near = difflib.get_close_matches(str(key), valid, n=1)
            raise InputError(
                f"{place}: {key!r} is not a key of kind {kind}; "
                + (f"did you mean {near[0]}?" if near else f"its keys are {valid}")
            )
    missing = [key for key in _REQUIRED_OF.get(kind, _REQUIRED) if not entry.get(key)]
    if missing:
        raise InputError(f"{place}: kind {kind} also needs {', '.join(missing)}")
    if {"/", "\\", "\0"} & set(str(entry["name"])):
        raise InputError(f"{place}: name is that of a folder too, found {entry['name']!r}")
    for key, value in entry.items():
        expected, name = (int, "an integer") if types.get(key) is int else (str, "a string")
        fits = isinstance(value, expected) and not isinstance(value, bool)
        if key != "words" and not fits:  # words may also be a list
            raise InputError(f"{place}: {key} must be {name}, found {value!r}")


def dataset_of(entry: Mapping[str, Any]) -> Dataset:
    """The dataset of a checked and complete entry."""
    return _KINDS[entry["kind"]](**{key: entry[key] for key in entry if key != "kind"})
