"""A census of a dataset described by a user: what there is to learn and to score, per class.

It is taken when the records are first loaded, before training or evaluation starts: from the JSON
for all images, and from the label maps of at most ``MAX_READ`` images, in threads. The result is
cached under the names, sizes and times of the files. Built-in datasets are not counted: the scripts
that prepare them check them.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate

from maskclippp.data.dataset import Dataset
from maskclippp.data.panoptic import check_areas, check_listed, pixel_counts
from maskclippp.data.semantic_maps import check_label_range, read_semantic_labels
from maskclippp.errors import InputError
from maskclippp.files.atomic import atomic_write
from maskclippp.files.cache import cache_folder
from maskclippp.files.images import (
    check_record_size,
    check_same_size,
    read_image_header,
    read_panoptic_ids,
)

MAX_READ = 1000
_SHOWN_CLASSES = 15
_VERSION = 1  # raise it when the meaning of a count changes
_LOGGER = logging.getLogger(__name__)

Record = dict[str, Any]


class Census(msgspec.Struct, frozen=True):
    """Counts by class; classes without any are left out."""

    images: int
    read: int  # images whose files were opened
    objects: dict[int, int] = {}  # segments or instances that are no crowds, of all images
    crowds: dict[int, int] = {}
    pixels: dict[int, int] = {}  # of the label maps that were read
    ignored: int = 0  # pixels
    absent: int = 0  # listed segments without a pixel
    turned: int = 0  # images with an EXIF orientation
    first_turned: str = ""
    missing_maps: int = 0  # semantic label maps, to be derived from panoptic ones
    first_missing_map: str = ""


class _Image(msgspec.Struct):
    """What the files of an image say."""

    pixels: Counter[int]
    ignored: int = 0
    absent: int = 0
    turned: bool = False
    missing_map: str = ""
    problem: str = ""


class CountedRecords:
    """Loads the records of a dataset, and reports its census the first time."""

    def __init__(self, dataset: Dataset, root: Path) -> None:
        self._dataset = dataset
        self._root = root
        self._reported = ""

    def __call__(self) -> list[Record]:
        """The records.

        Raises:
            InputError: a file is broken, annotation and image do not fit, or nothing is annotated.
        """
        records = self._dataset.load(self._root)
        if self._dataset.annotations:
            chosen = _evenly(records, MAX_READ)
            key = _fingerprint(self._dataset, records, chosen)
            if key != self._reported:
                census = _cached(self._dataset, records, chosen, key)
                report(census, self._dataset)
                self._reported = key
        return records


def take_census(dataset: Dataset, records: Sequence[Record], chosen: Sequence[Record]) -> Census:
    """Count all records, and open the files of the chosen ones.

    Raises:
        InputError: a file is broken, or annotation and image do not fit; counts such images.
    """
    objects: Counter[int] = Counter()
    crowds: Counter[int] = Counter()
    for record in records:
        for entry in record.get("segments_info") or record.get("annotations") or ():
            (crowds if entry.get("iscrowd", 0) else objects)[entry["category_id"]] += 1
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        images = list(threads.map(partial(_look_at, dataset), chosen))
    problems = [image.problem for image in images if image.problem]
    if problems:
        more = f" ({len(problems)} of {len(images)} images have such a problem)"
        raise InputError(problems[0] + (more if len(problems) > 1 else ""))
    missing = [image.missing_map for image in images if image.missing_map]
    turned = [r["file_name"] for r, image in zip(chosen, images, strict=True) if image.turned]
    return Census(
        images=len(records),
        read=len(chosen),
        objects=dict(objects),
        crowds=dict(crowds),
        pixels=dict(sum((image.pixels for image in images), Counter())),
        ignored=sum(image.ignored for image in images),
        absent=sum(image.absent for image in images),
        turned=len(turned),
        first_turned=turned[0] if turned else "",
        missing_maps=len(missing),
        first_missing_map=missing[0] if missing else "",
    )


def report(census: Census, dataset: Dataset) -> None:
    """Log the census as a short table, and warn of what is probably not meant.

    Raises:
        InputError: nothing is annotated.
    """
    names = dataset.classes.names
    _check_annotated(census, dataset)
    _LOGGER.info("%s", _table(census, dataset))
    present = census.pixels.keys() | census.objects.keys() | census.crowds.keys()
    absent = [name for index, name in enumerate(names) if index not in present]
    if absent:
        _LOGGER.warning(
            "dataset %s: %d of %d classes do not occur%s: %s%s",
            dataset.name,
            len(absent),
            len(names),
            "" if census.read == census.images else f" in the {census.read} label maps read",
            ", ".join(map(repr, absent[:_SHOWN_CLASSES])),
            "" if len(absent) <= _SHOWN_CLASSES else ", ...",
        )
    for text in _suspicions(census, dataset):
        _LOGGER.warning("dataset %s: %s", dataset.name, text)


def _suspicions(census: Census, dataset: Dataset) -> list[str]:
    """What is probably not meant, in words."""
    names, ignored = dataset.classes.names, _ignored_value(dataset)
    found = []
    if census.ignored and len(names) <= 2 and census.pixels.keys() == {0}:
        back, front = names if len(names) == 2 else ("background", names[0])
        effect = f"{front!r} is never learned" if len(names) == 2 else f"all others are {front!r}"
        found.append(
            f"pixels of value {ignored}, {_share(census)} of all, are ignored, and {effect}; if "
            f"{ignored} means {front!r}, number the lines of the word list (0: {back}, "
            f"{ignored}: {front}) and set ignore to another value, such as 254"
        )
    if ignored == 65535 and 255 in census.pixels and max(census.pixels) == 255:
        found.append(
            f"value 255 is read as the class {names[255]!r}, because with more than 255 classes "
            "65535 is ignored; if 255 means unlabeled pixels, write label maps of 16 bits, with "
            "65535 there"
        )
    if census.crowds and not census.objects:
        found.append(
            f"all {sum(census.crowds.values())} objects are crowds (iscrowd 1), which are neither "
            "learned nor scored as objects; set iscrowd to 0 for single objects"
        )
    if census.absent:
        found.append(f"{census.absent} segments of the JSON have no pixel in their panoptic map")
    if census.missing_maps:
        found.append(
            f"{census.missing_maps} label maps of semantic_maps, the first of them "
            f"{census.first_missing_map}, do not exist and are derived from panoptic maps"
        )
    if census.turned:
        found.append(
            f"{_counted(census.turned)}, the first of them {census.first_turned}, "
            f"{'is' if census.turned == 1 else 'are'} turned or mirrored by the EXIF orientation; "
            "the annotation must fit the upright image"
        )
    return found


def _counted(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}"


def _check_annotated(census: Census, dataset: Dataset) -> None:
    if census.missing_maps == census.read:
        raise InputError(
            f"dataset {dataset.name}: none of the label maps below semantic_maps exists, the first "
            f"of them {census.first_missing_map}: correct the path, or leave semantic_maps out to "
            "have labels derived from the panoptic maps"
        )
    if census.pixels or census.objects or census.crowds:
        return
    what = (
        f"all {census.ignored} pixels of the {census.read} label maps read are ignored (value "
        f"{_ignored_value(dataset)})"
        if census.ignored
        else f"there is no object in {_counted(census.images)}"
    )
    raise InputError(
        f"dataset {dataset.name}: nothing can be learned or scored, because {what}; check "
        f"{dataset.annotations}"
    )


def _table(census: Census, dataset: Dataset) -> str:
    """The most frequent classes, one a line."""
    names, total = dataset.classes.names, sum(census.pixels.values()) + census.ignored
    weights = census.pixels or Counter(census.objects) + Counter(census.crowds)
    classes = sorted(weights, key=lambda index: -weights[index])
    rows = []
    for index in classes[:_SHOWN_CLASSES]:
        row: list[Any] = [names[index]]
        if census.objects or census.crowds:
            row += [census.objects.get(index, 0), census.crowds.get(index, 0)]
        if total:
            row.append(f"{census.pixels.get(index, 0) / total:.2%}")
        rows.append(row)
    header = ["class"]
    header += ["objects", "crowds"] if census.objects or census.crowds else []
    header += ["pixels"] if total else []
    files = "" if census.read == census.images else f" (files of {_counted(census.read)} read)"
    lines = [
        f"dataset {dataset.name}: {_counted(census.images)}{files}, {len(weights)} of {len(names)} "
        f"classes occur" + (f", {_share(census)} of the pixels are ignored" if total else ""),
        tabulate(rows, header, tablefmt="simple"),
    ]
    if len(classes) > _SHOWN_CLASSES:
        lines.append(f"and {len(classes) - _SHOWN_CLASSES} rarer classes")
    return "\n".join(lines)


def _share(census: Census) -> str:
    return f"{census.ignored / max(1, sum(census.pixels.values()) + census.ignored):.2%}"


def _ignored_value(dataset: Dataset) -> int | None:
    """The value of ignored pixels in the files of semantic label maps."""
    values = getattr(dataset, "values", None)
    return getattr(dataset, "ignore", None) if values is None else values.ignored


def _look_at(dataset: Dataset, record: Record) -> _Image:
    """Open the files of a record; an InputError becomes the image's problem."""
    try:
        return _open(dataset, record)
    except InputError as error:
        return _Image(Counter(), problem=str(error))


def _open(dataset: Dataset, record: Record) -> _Image:
    header = read_image_header(record["file_name"])
    check_record_size(record, *header.size)
    found = _Image(Counter(), turned=header.turned)
    if "pan_seg_file_name" in record:
        file, segments = record["pan_seg_file_name"], record["segments_info"]
        ids = read_panoptic_ids(file)
        check_same_size(header.size, record["file_name"], ids.shape, file)
        pixels = pixel_counts(ids)
        place = f"{dataset.annotations}, panoptic map {file}"
        check_listed(pixels, segments, place)
        check_areas(pixels, segments, place)
        found.ignored = pixels.get(0, 0)
        for segment in segments:
            found.pixels[segment["category_id"]] += pixels.get(segment["id"], 0)
            found.absent += segment["id"] not in pixels
        if not Path(record.get("sem_seg_file_name") or file).is_file():
            found.missing_map = record["sem_seg_file_name"]
    if "sem_seg_file_name" in record and not found.missing_map:
        ignored: int = getattr(dataset, "ignore", 255)
        semantic = read_semantic_labels(record, ignored)
        check_same_size(header.size, record["file_name"], semantic.labels.shape, semantic.source)
        check_label_range(
            semantic,
            num_classes=len(dataset.classes),
            ignore_label=ignored,
            dataset_name=dataset.name,
        )
        found.pixels = Counter(pixel_counts(semantic.labels))
        found.ignored = found.pixels.pop(ignored, 0)
    found.pixels = +found.pixels
    return found


def _evenly(records: Sequence[Record], number: int) -> list[Record]:
    """At most ``number`` records, evenly spaced."""
    places = np.linspace(0, len(records) - 1, min(number, len(records)))
    return [records[int(place)] for place in places]


def _fingerprint(dataset: Dataset, records: Sequence[Record], chosen: Sequence[Record]) -> str:
    """Changes with the settings, the number of records, and every file that is opened."""
    digest = hashlib.sha256(f"{_VERSION} {dataset!r} {len(records)}".encode())
    files = [r[key] for r in chosen for key in r if key.endswith("file_name")]
    for file in [dataset.annotations, *files]:
        if Path(file).is_file():
            status = Path(file).stat()
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _cached(
    dataset: Dataset, records: Sequence[Record], chosen: Sequence[Record], key: str
) -> Census:
    """The census of the cache, or a new one, which is stored there if that is possible."""
    file = cache_folder() / "census" / f"{key}.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Census)
    except (OSError, msgspec.DecodeError):
        census = take_census(dataset, records, chosen)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, durable=False) as stream:
            stream.write(msgspec.json.encode(census))
    except OSError as error:
        _LOGGER.info("the census of %s is not cached: %s", dataset.name, error)
    return census
