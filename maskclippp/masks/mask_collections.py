"""One file with the masks of many images.

The suffix of its name selects the format:

- ``.json``: COCO results, a list of objects with ``image_id`` and the run-length encoding
  ``segmentation``; or a COCO annotation file, an object with ``images`` and ``annotations``.
- ``.npz``: an array per image, as in a ``.npy`` file of that image (``mask_files.py``).

The masks of an image are found by the name of its file without extension, or by its ``image_id``.
Leading zeros do not matter, unless the name and the ``image_id`` are different numbers. COCO's
annotation files also give the names of the files. Categories and scores are not used.
"""

import zipfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from torch import Tensor

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError
from maskclippp.files.json_files import read_json
from maskclippp.masks.array_files import read_array
from maskclippp.masks.mask_files import masks_of_array, masks_of_codes
from maskclippp.records import Record, output_size

_FORMATS = (".json", ".npz")


class _Contents(NamedTuple):
    """The run-length codes of every image, or the name of its array: by name, and by id."""

    named: Mapping[str, Any]
    numbered: Mapping[str, Any]
    names_are_files: bool = False  # and no ids


class MaskCollection:
    """The masks of many images, by the ids or names of the images.

    Args:
        path: the file. A JSON file is read now, and arrays when they are asked for.

    Raises:
        UnreadableFileError: it cannot be read.
        InputError: an unknown format, or content of another form.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in _FORMATS:
            raise InputError(
                f"mask file {path}: masks of all images are read from one of {_FORMATS}; other "
                "formats hold one image, so give the folder with the files of all images"
            )
        self.path = path
        self._file_of: dict[str, str] = {}  # the image that every name was used for
        self._contents = _codes_by_image(path) if path.suffix == ".json" else _array_names(path)

    def masks_of(self, record: Record) -> Tensor:
        """Masks [Q, H, W] of an image, bool or floats in [0, 1].

        Raises:
            MissingFileError: the file has nothing for the image.
            InputError: it may have the masks of another image; or see
                :func:`maskclippp.masks.mask_files.read_masks`.
        """
        found, size = self._find(record), output_size(record)
        where = f"mask file {self.path}, image {next(iter(_keys(record).values()))}"
        if self.path.suffix == ".json":
            return masks_of_codes(found, size, where)
        return masks_of_array(read_array(self.path, size, where, found), size, where)

    def _find(self, record: Record) -> Any:
        """The codes of an image, or the name of its array."""
        keys = _keys(record)
        number, name = keys.get("image_id"), keys.get("file_name")
        named, numbered, names_are_files = self._contents
        found = [
            table[key]
            for table, key in ((named, name), (numbered, number))
            if key is not None and key in table
        ] or self._without_zeros(keys.values())
        place = f"mask file {self.path} has"
        if not found:
            known = list(dict.fromkeys([*numbered, *named]))
            raise MissingFileError(
                f"{place} no masks of the image {' or '.join(keys.values()) or '?'}; its "
                f"{len(known)} keys are such as {known[:3]} (expected the image_id, or the name of "
                "the image file; an image without masks is listed in 'images', or has an array of "
                "no masks)"
            )
        if not names_are_files and any(other is not found[0] for other in found):
            raise InputError(
                f"{place} masks of {name!r}, the name of an image, and others of {number!r}, its "
                "image_id: name all of them like the image files"
            )
        if name is not None and (name in named or number not in numbered):
            file = record["file_name"]
            other = self._file_of.setdefault(name, file)
            if other != file:
                raise InputError(
                    f"{place} masks of {name!r}, which is the name of {other} and of {file}: give "
                    "a folder with a mask file for each image instead"
                )
        return found[0]

    def _without_zeros(self, keys: Iterable[str]) -> list[Any]:
        """What is found if leading zeros do not matter; nothing if the keys are two numbers."""
        wanted = {_plain(key) for key in keys}
        if sum(key.isdigit() for key in wanted) > 1:
            return []
        return [value for key, value in self._plain_contents.items() if key in wanted]

    @cached_property
    def _plain_contents(self) -> Mapping[str, Any]:
        tables = (self._contents.numbered, self._contents.named)
        return {_plain(key): value for table in tables for key, value in table.items()}


def _keys(record: Record) -> dict[str, str]:
    """``image_id`` and the name in ``file_name``, as far as the record has them."""
    keys = {"image_id": str(record["image_id"])} if "image_id" in record else {}
    if "file_name" in record:
        keys["file_name"] = PurePath(record["file_name"]).stem
    return keys


def _plain(key: str) -> str:
    """A number without leading zeros."""
    return str(int(key)) if key.isascii() and key.isdigit() else key


def _array_names(path: Path) -> _Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name: name for name in (n.removesuffix(".npy") for n in archive.namelist())}
    except (OSError, zipfile.BadZipFile) as error:
        raise UnreadableFileError(f"mask file {path} cannot be read: {error}") from error
    return _Contents(names, names)


def _codes_by_image(path: Path) -> _Contents:
    content: Any = read_json(path, Any, "the masks of all images")
    named: dict[str, list[Any]] = {}
    numbered: dict[str, list[Any]] = {}
    files: dict[str, list[list[Any]]] = {}
    entries = content
    if isinstance(content, dict):
        entries = content.get("annotations")
        images = content.get("images")
        for image in images if isinstance(images, list) else []:
            if isinstance(image, dict) and "id" in image:
                codes = numbered.setdefault(str(image["id"]), [])
                if isinstance(image.get("file_name"), str):
                    files.setdefault(PurePath(image["file_name"]).stem, []).append(codes)
    if not isinstance(entries, list):
        raise InputError(
            f"mask file {path}: expected COCO results, a list of objects with 'image_id' and "
            "'segmentation', or an object with such a list as 'annotations'"
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or "image_id" not in entry or "segmentation" not in entry:
            raise InputError(
                f"mask file {path}: entry {index} must be an object with 'image_id' and "
                f"'segmentation', found {str(entry)[:80]}; a file of one image belongs in a folder"
            )
        key = str(entry["image_id"])
        numbered.setdefault(key, []).append(entry)
        if isinstance(entry["image_id"], str):
            named[key] = numbered[key]
    if files:
        # A name that two folders have says nothing.
        named = {name: codes[0] for name, codes in files.items() if len(codes) == 1}
    return _Contents(named, numbered, names_are_files=bool(files))
