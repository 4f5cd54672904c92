"""Datasets described in a config: DATASETS.CUSTOM, a list of mappings (docs/own_dataset.md).

Settings that an entry omits are derived from its files. Paths are absolute, relative to the working
directory, or start with ``~``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.entries import check_entry, dataset_of
from maskclippp.data.semantic_maps import LabelValues
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.images import read_json
from maskclippp.visualization import word_colors
from maskclippp.words import Vocabulary, read_words

KEY = "DATASETS.CUSTOM"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG", ".webp", ".bmp", ".tif")
LABEL_SUFFIXES = (".png", ".PNG", ".tif", ".tiff", ".bmp")


def register_custom_datasets(entries: Sequence[Any]) -> None:
    """Register the datasets that DATASETS.CUSTOM describes; a later call replaces them.

    Raises:
        MissingFileError: a word list, folder or annotation file does not exist.
        InputError: an entry is incomplete or misspelled, a name is taken, or words or category ids
            are missing or occur twice.
    """
    place_of: dict[str, str] = {}
    for index, entry in enumerate(entries):
        place = f"{KEY}[{index}]"
        check_entry(entry, place)
        name = entry["name"]
        if name in place_of:
            raise InputError(f"{place}: {place_of[name]} has the name {name} too")
        place_of[name] = place
        if name in DatasetCatalog.list():
            if not MetadataCatalog.get(name).get("is_custom", False):
                raise InputError(f"{place}: {name} is a built-in dataset; rename yours")
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        complete = _complete_index_png if entry["kind"] == "index_png" else _complete_json
        settings = {
            "preparation": f"check its paths in {KEY}",
            **entry,
            **complete(entry, f"{KEY} {name}"),
        }
        dataset_of(settings).register(Path.cwd())
        MetadataCatalog.get(name).set(is_custom=True)


def _complete_index_png(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Absolute paths, classes, suffixes, and the meaning of the label values."""
    words = _read_words(entry["words"], place)
    positions = tuple(range(len(words)))
    ids = words.ids or positions
    # The label of ignored pixels must not be the position of a class.
    ignore_label = 255 if len(words) <= 255 else 65535
    values = LabelValues(ids, entry.get("ignore", ignore_label))
    if values.ignored in ids:
        raise InputError(
            f"{place}: ignore is {values.ignored}, which is also the value of the class "
            f"{words.names[ids.index(values.ignored)]!r}; number the classes in the word list "
            "(id: name, synonym) by their values in the label files, or choose another ignore"
        )
    images = _existing_folder(entry["images"], f"{place}: images")
    labels = _existing_folder(entry["annotations"], f"{place}: annotations")
    return {
        "images": str(images),
        "annotations": str(labels),
        "words": _with_kinds(words, ids, [False] * len(words)),
        "image_suffix": entry.get("image_suffix")
        or _only_suffix(images, IMAGE_SUFFIXES, f"{place}: images"),
        "suffix": entry.get("suffix")
        or _only_suffix(labels, LABEL_SUFFIXES, f"{place}: annotations"),
        "ignore": ignore_label,
        "values": None if values == LabelValues(positions, ignore_label) else values,
    }


def _complete_json(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Absolute paths, and the classes: those of the JSON, or one line of words for each."""
    panoptic = entry["kind"] == "coco_panoptic"
    json_file = _absolute(entry["annotations"])
    keys = ("id", "name", "isthing") if panoptic else ("id", "name")
    content = read_json(json_file, {"categories": keys}, f"the annotation of {place}")
    categories = content["categories"]
    ids = [category["id"] for category in categories]
    repeated = sorted({category for category in ids if ids.count(category) > 1})
    if repeated:
        raise InputError(f"{json_file}: the category ids {repeated[:10]} occur more than once")
    if entry.get("words"):
        words = _read_words(entry["words"], place)
        _check_fits_categories(words, ids, place)
    else:
        names = [category["name"] for category in categories]
        source = f"the categories of {json_file}"
        words = Vocabulary.from_class_names(names, source, ids).require_unique()
    is_thing = [bool(category["isthing"]) if panoptic else True for category in categories]
    others = [key for key in ("semantic_maps", "instances") if key in entry]
    completed = {
        "images": str(_existing_folder(entry["images"], f"{place}: images")),
        "annotations": str(json_file),
        "words": _with_kinds(words.by_ids(ids) if words.ids else words, ids, is_thing),
        **{key: str(_absolute(entry[key])) for key in others},
    }
    if panoptic:
        maps = entry.get("panoptic_maps") or json_file.with_suffix("")
        completed["panoptic_maps"] = str(_existing_folder(maps, f"{place}: panoptic_maps"))
        completed["file_names"] = entry.get("file_names", "listed")
    return completed


def _check_fits_categories(words: Vocabulary, ids: Sequence[int], place: str) -> None:
    differing = sorted(set(words.ids) ^ set(ids)) if words.ids else []
    if differing:
        raise InputError(
            f"{place}: {words.source} and the categories of the JSON do not have the same ids: "
            f"{differing[:10]} are in only one of them"
        )
    if len(words) != len(ids):
        raise InputError(
            f"{place}: {words.source} has {len(words)} classes, the JSON has {len(ids)} "
            "categories; write one line for each, in the order of the JSON or with its id"
        )


def _read_words(words: Any, place: str) -> Vocabulary:
    """Classes from a text file, a list, or a row of names."""
    if isinstance(words, list) and all(isinstance(name, str) for name in words):
        return Vocabulary.from_class_names(words, f"{place}: words").require_unique()
    if not isinstance(words, str):
        raise InputError(
            f"{place}: words must be the path of a text file, or a list of class names, found "
            f"{words!r}"
        )
    return read_words(words)


def _with_kinds(words: Vocabulary, ids: Sequence[int], is_thing: Sequence[bool]) -> Vocabulary:
    """The classes with their ids, their kinds, and a color each: their own, if they have one."""
    colors = words.colors or tuple(word_colors(words.names))
    return Vocabulary(words.classes, words.source, tuple(ids), tuple(is_thing), colors)


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def _existing_folder(path: str | Path, what: str) -> Path:
    folder = _absolute(path)
    if not folder.is_dir():
        raise MissingFileError(f"{what}: {folder} is not a folder (looked in {Path.cwd()})")
    return folder


def _only_suffix(folder: Path, suffixes: Sequence[str], what: str) -> str:
    """The one suffix of the image files in a folder and its subfolders."""
    found = {
        suffix
        for _, _, names in os.walk(folder, followlinks=True)
        for suffix in {Path(name).suffix for name in names}
        if suffix in suffixes
    }
    if len(found) != 1:
        raise InputError(
            f"{what}: {folder} contains "
            + (f"files of the kinds {sorted(found)}" if found else "no files of a known kind")
            + f"; expected one of {', '.join(suffixes)}"
        )
    return found.pop()
