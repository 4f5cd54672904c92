"""Datasets that a config describes: DATASETS.CUSTOM, a list of mappings (docs/own_dataset.md).

Paths are absolute, relative to the working directory, or begin with ``~``.
"""

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.panoptic import PanopticDataset
from maskclippp.data.semantic import SemanticDataset
from maskclippp.data.semantic_maps import LabelValues
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.images import read_json
from maskclippp.visualization import class_color
from maskclippp.words import Vocabulary, parse_class_row, read_vocabulary

KEY = "DATASETS.CUSTOM"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG", ".webp", ".bmp", ".tif")
LABEL_SUFFIXES = (".png", ".PNG", ".tif", ".tiff", ".bmp")

_REQUIRED = {
    "index_png": ("name", "kind", "images", "annotations", "words"),
    "coco_panoptic": ("name", "kind", "images", "annotations"),
}
_OPTIONAL = {
    "index_png": ("ignore",),
    "coco_panoptic": ("words", "panoptic_maps"),
}
_PANOPTIC_KEYS = {"images": ("id",), "annotations": (), "categories": ("id", "name", "isthing")}


def register_custom_datasets(entries: Sequence[Any]) -> None:
    """Register the datasets that DATASETS.CUSTOM describes; a later call replaces them.

    Raises:
        FileNotFoundError: a word list, folder or annotation file is not there.
        ValueError: an entry that is incomplete or misspelt, a name that is taken, or words or
            category ids that are missing or stand twice.
    """
    place_of: dict[str, str] = {}
    for index, entry in enumerate(entries):
        settings = _check_entry(entry, f"{KEY}[{index}]")
        name = settings["name"]
        if name in place_of:
            raise InputError(f"{KEY}[{index}]: {place_of[name]} has the name {name} too")
        place_of[name] = f"{KEY}[{index}]"
        if name in DatasetCatalog.list():
            if not MetadataCatalog.get(name).get("is_custom", False):
                raise InputError(f"{KEY}[{index}]: a dataset {name} ships already; rename yours")
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register = _register_index_png if settings["kind"] == "index_png" else _register_panoptic
        register(settings, f"{KEY} {name}")
        MetadataCatalog.get(name).set(is_custom=True)


def _check_entry(entry: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise InputError(
            f"{place}: expected a mapping with name, kind, images and annotations, found {entry!r}"
        )
    kind = entry.get("kind")
    if kind not in _REQUIRED:
        raise InputError(f"{place}: kind must be one of {sorted(_REQUIRED)}, found {kind!r}")
    valid = [*_REQUIRED[kind], *_OPTIONAL[kind]]
    for key in entry:
        if key not in valid:
            near = difflib.get_close_matches(str(key), valid, n=1)
            raise InputError(
                f"{place}: {key!r} is no key of kind {kind}"
                + (f"; did you mean {near[0]}?" if near else f"; its keys are {valid}")
            )
    missing = [key for key in _REQUIRED[kind] if not entry.get(key)]
    if missing:
        raise InputError(f"{place}: kind {kind} needs {', '.join(missing)} as well")
    for key in valid:
        if key not in ("words", "ignore") and not isinstance(entry.get(key, ""), str):
            raise InputError(f"{place}: {key} must be a text, found {entry[key]!r}")
    return entry


def _register_index_png(settings: Mapping[str, Any], place: str) -> None:
    words = _read_words(settings["words"], place)
    num_classes = len(words)
    # Positions of classes and the label of ignored pixels must not meet.
    ignore_label = 255 if num_classes <= 255 else 65535
    written_ignore = settings.get("ignore", ignore_label)
    if not isinstance(written_ignore, int):
        raise InputError(f"{place}: ignore must be a pixel value, found {written_ignore!r}")
    ids = words.ids or tuple(range(num_classes))
    if written_ignore in ids:
        raise InputError(
            f"{place}: ignore is {written_ignore}, which is also the value of the class "
            f"{words.names[ids.index(written_ignore)]!r}; number the classes in the word list "
            "(id: name, synonym) by their values in the label files, or choose another ignore"
        )
    values = LabelValues(ids, written_ignore)
    plain_values = LabelValues(tuple(range(num_classes)), ignore_label)
    images = _existing_folder(settings["images"], f"{place}: images")
    labels = _existing_folder(settings["annotations"], f"{place}: annotations")
    dataset = SemanticDataset(
        name=settings["name"],
        images=str(images),
        labels=str(labels),
        class_list=_with_kinds(words, ids, [False] * num_classes),
        preparation=f"check its paths in {KEY}",
        image_suffix=_only_suffix(images, IMAGE_SUFFIXES, f"{place}: images"),
        label_suffix=_only_suffix(labels, LABEL_SUFFIXES, f"{place}: annotations"),
        ignore_label=ignore_label,
        values=None if values == plain_values else values,
    )
    dataset.register(Path.cwd())


def _register_panoptic(settings: Mapping[str, Any], place: str) -> None:
    json_file = Path(settings["annotations"]).expanduser().absolute()
    categories, image_names = _read_outline(json_file, place)
    ids = [category["id"] for category in categories]
    repeated = sorted({identity for identity in ids if ids.count(identity) > 1})
    if repeated:
        raise InputError(f"{json_file}: the category ids {repeated[:10]} stand more than once")
    if settings.get("words"):
        words = _read_words(settings["words"], place)
        _check_fits_categories(words, ids, place)
    else:
        words = Vocabulary.from_class_names(
            [c["name"] for c in categories], f"the categories of {json_file}", ids
        ).require_unique()
    maps = settings.get("panoptic_maps") or json_file.with_suffix("")
    images = _existing_folder(settings["images"], f"{place}: images")
    dataset = PanopticDataset(
        name=settings["name"],
        images=str(images),
        panoptic_json=str(json_file),
        panoptic_maps=str(_existing_folder(maps, f"{place}: panoptic_maps")),
        # There are none, as nothing lies below a file: labels follow from the panoptic maps.
        semantic_maps=str(json_file / "none"),
        class_list=_with_kinds(
            words.by_ids(ids) if words.ids else words,
            ids,
            [bool(c["isthing"]) for c in categories],
        ),
        preparation=f"check its paths in {KEY}",
        image_of=functools.partial(_image_name, image_names),
    )
    dataset.register(Path.cwd())


def _read_outline(json_file: Path, place: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The categories of a panoptic JSON, and the image file by the stem of the panoptic PNG."""
    content = read_json(json_file, _PANOPTIC_KEYS, f"the panoptic annotation of {place}")
    names = {image["id"]: image.get("file_name") for image in content["images"]}
    image_names = {}
    for annotation in content["annotations"]:
        name = names.get(annotation.get("image_id"))
        if name is None:
            raise InputError(
                f"{json_file}: the annotation {annotation.get('file_name')} is of image "
                f"{annotation.get('image_id')!r}, which is not listed with a file_name"
            )
        image_names[Path(annotation["file_name"]).stem] = name
    return content["categories"], image_names


def _image_name(image_names: Mapping[str, str], stem: str) -> str:
    return image_names[stem]


def _check_fits_categories(words: Vocabulary, ids: Sequence[int], place: str) -> None:
    if words.ids and set(words.ids) != set(ids):
        differing = sorted(set(words.ids) ^ set(ids))
        raise InputError(
            f"{place}: {words.source} and the categories of the JSON do not have the same ids: "
            f"{differing[:10]} are in one of them only"
        )
    if len(words) != len(ids):
        raise InputError(
            f"{place}: {words.source} has {len(words)} classes, the JSON has {len(ids)} "
            "categories; write one line for each, in the order of the JSON or with its id"
        )


def _read_words(words: Any, place: str) -> Vocabulary:
    """Words of a text file, of a list, or in a row."""
    if isinstance(words, list) and all(isinstance(name, str) for name in words):
        return Vocabulary.from_class_names(words, f"{place}: words").require_unique()
    if not isinstance(words, str):
        raise InputError(
            f"{place}: words must be the path of a text file, or a list of class names, found "
            f"{words!r}"
        )
    path = Path(words).expanduser()
    if not path.is_file() and "," in words:
        return parse_class_row(words)
    return read_vocabulary(path).require_unique()


def _with_kinds(words: Vocabulary, ids: Sequence[int], is_thing: Sequence[bool]) -> Vocabulary:
    """The classes with their ids and kinds, and a color each."""
    colors = tuple(class_color(index) for index in range(len(words)))
    return Vocabulary(words.classes, words.source, tuple(ids), tuple(is_thing), colors)


def _existing_folder(path: Any, what: str) -> Path:
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise MissingFileError(f"{what}: {folder} is no folder (looked in {Path.cwd()})")
    return folder


def _only_suffix(folder: Path, suffixes: Sequence[str], what: str) -> str:
    """The suffix that the files in and below a folder have; it must be one."""
    found = {
        suffix
        for _, _, names in os.walk(folder, followlinks=True)
        for suffix in {Path(name).suffix for name in names}
        if suffix in suffixes
    }
    if len(found) != 1:
        raise InputError(
            f"{what}: {folder} holds "
            + (f"files of the kinds {sorted(found)}" if found else "no files of a known kind")
            + f"; expected one of {', '.join(suffixes)}"
        )
    return found.pop()
