"""Datasets described in a config: DATASETS.CUSTOM, a list of mappings (docs/own_dataset.md).

Settings that an entry omits are derived from its files. Paths are absolute, relative to the working
directory, or start with ``~``.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.census import CountedRecords
from maskclippp.data.coco_json import read_instances, read_panoptic
from maskclippp.data.entries import check_entry, dataset_of
from maskclippp.data.image_folder import IMAGE_SUFFIXES, LABEL_SUFFIXES
from maskclippp.data.semantic_maps import LabelValues
from maskclippp.errors import InputError, MissingFileError
from maskclippp.visualization import word_colors
from maskclippp.words import Vocabulary, read_words

KEY = "DATASETS.CUSTOM"
_MAX_LABEL = 65535  # of a label file of 16 bits


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
        settings = {
            "preparation": f"check its paths in {KEY}",
            **entry,
            **_COMPLETE[entry["kind"]](entry, f"{KEY} {name}"),
        }
        dataset = dataset_of(settings)
        dataset.register(Path.cwd(), CountedRecords(dataset, Path.cwd()))
        MetadataCatalog.get(name).set(is_custom=True)


def _complete_images(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Absolute paths and classes; an InputError if the entry has annotations."""
    if entry.get("annotations"):
        raise InputError(
            f"{place}: kind images has no annotations; label maps are those of kind index_png"
        )
    words = _read_words(entry["words"], place)
    ids = words.ids or range(len(words))
    return {
        "images": str(_existing_folder(entry["images"], f"{place}: images")),
        "words": _with_kinds(words, ids, [False] * len(words)),
        **{key: entry[key] for key in ("image_suffix",) if key in entry},
    }


def _complete_index_png(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Absolute paths, classes, suffixes, and the meaning of the label values."""
    words = _read_words(entry["words"], place)
    positions = tuple(range(len(words)))
    ids = words.ids or positions
    ignore_label = default_ignore(len(words))
    values = LabelValues(ids, entry.get("ignore", ignore_label))
    if not 0 <= values.ignored <= _MAX_LABEL:
        raise InputError(
            f"{place}: ignore must be a value of label files, 0..{_MAX_LABEL}, found "
            f"{values.ignored}"
        )
    if max(ids) > _MAX_LABEL:
        raise InputError(
            f"{place}: the word list numbers a class {max(ids)}, but label files hold values "
            f"0..{_MAX_LABEL}: number the classes by their values in the label files"
        )
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
        "image_suffix": entry.get("image_suffix") or IMAGE_SUFFIXES,
        "label_suffix": entry.get("label_suffix") or LABEL_SUFFIXES,
        "ignore": ignore_label,
        "values": None if values == LabelValues(positions, ignore_label) else values,
    }


def default_ignore(num_classes: int) -> int:
    """The label of ignored pixels, which must not be the position of a class."""
    return 255 if num_classes <= 255 else _MAX_LABEL


def _complete_panoptic(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Absolute paths, and the classes: those of the JSON, or one line of words for each."""
    json_file = _absolute(entry["annotations"])
    content = read_panoptic(json_file, f"the annotation of {place}")
    categories = content["categories"]
    words = _words_of_categories(entry, categories, json_file, place)
    ids = [category["id"] for category in categories]
    is_thing = [bool(category["isthing"]) for category in categories]
    ignore = entry.get("ignore", default_ignore(len(words)))
    if not len(words) <= ignore <= _MAX_LABEL:
        raise InputError(
            f"{place}: ignore must be a value of the semantic maps that is no class, "
            f"{len(words)}..{_MAX_LABEL}, found {ignore}"
            + (f", the class {words.names[ignore]!r}" if 0 <= ignore < len(words) else "")
        )
    maps = entry.get("panoptic_maps") or json_file.with_suffix("")
    completed = {
        "images": str(_existing_folder(entry["images"], f"{place}: images")),
        "annotations": str(json_file),
        "words": _with_kinds(words, ids, is_thing),
        "panoptic_maps": str(_existing_folder(maps, f"{place}: panoptic_maps")),
        "file_names": entry.get("file_names", "listed"),
        "ignore": ignore,
    }
    if "semantic_maps" in entry:
        folder = _existing_folder(entry["semantic_maps"], f"{place}: semantic_maps")
        completed["semantic_maps"] = str(folder)
    if "instances" in entry:
        instances = _absolute(entry["instances"])
        objects = read_instances(instances, f"the instances of {place}")
        things = {identity for identity, thing in zip(ids, is_thing, strict=True) if thing}
        surplus = sorted({category["id"] for category in objects["categories"]} ^ things)
        if surplus:
            raise InputError(
                f"{place}: the categories of {instances} must be the things of {json_file}, but "
                f"the ids {surplus[:10]} are in only one of them"
            )
        completed["instances"] = str(instances)
    return completed


def _complete_instances(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Absolute paths, and the classes: those of the JSON, or one line of words for each."""
    json_file = _absolute(entry["annotations"])
    content = read_instances(
        json_file, f"the annotation of {place}", required={"categories": ("name",)}
    )
    words = _words_of_categories(entry, content["categories"], json_file, place)
    ids = [category["id"] for category in content["categories"]]
    return {
        "images": str(_existing_folder(entry["images"], f"{place}: images")),
        "annotations": str(json_file),
        "words": _with_kinds(words, ids, [True] * len(words)),
    }


_COMPLETE: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "images": _complete_images,
    "index_png": _complete_index_png,
    "coco_panoptic": _complete_panoptic,
    "coco_instances": _complete_instances,
}


def _words_of_categories(
    entry: Mapping[str, Any], categories: Sequence[Mapping[str, Any]], json_file: Path, place: str
) -> Vocabulary:
    """The words of an entry in the order of the categories, or else their names."""
    ids = [category["id"] for category in categories]
    if not entry.get("words"):
        names = [category["name"] for category in categories]
        source = f"the categories of {json_file}"
        return Vocabulary.from_class_names(names, source, ids).require_unique()
    words = _read_words(entry["words"], place)
    _check_fits_categories(words, ids, place)
    return words.by_ids(ids) if words.ids else words


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
