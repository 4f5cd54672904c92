"""One file with the masks of many images.

The suffix of its name selects the format:

- ``.json``: COCO results, a list of objects with ``image_id`` and the run-length encoding
  ``segmentation``; or a COCO annotation file, an object with ``images`` and ``annotations``.
- ``.npz``: an array per image, as in a ``.npy`` file of that image (``mask_files.py``).

The masks of an image are found by its ``image_id`` or by the name of its file without extension,
with or without leading zeros. COCO's annotation files also give the names of the files. Categories
and scores are not used.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError
from maskclippp.files.json_files import read_json
from maskclippp.masks.array_files import read_array
from maskclippp.masks.mask_files import masks_of_array, masks_of_codes
from maskclippp.records import Record, output_size

_FORMATS = (".json", ".npz")


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
        # The run-length codes of every image, or the name of its array.
        self._found: Mapping[str, Any] = (
            _codes_by_image(path) if path.suffix == ".json" else _array_names(path)
        )

    def masks_of(self, record: Record) -> Tensor:
        """Masks [Q, H, W] of an image, bool or floats in [0, 1].

        Raises:
            MissingFileError: the file has nothing for the image.
            InputError: see :func:`maskclippp.masks.mask_files.read_masks`.
        """
        keys = list(_keys(record))
        key = next((key for key in keys if key in self._found), None)
        if key is None:
            raise MissingFileError(
                f"mask file {self.path} has no masks of the image {' or '.join(keys) or '?'}; its "
                f"{len(self._found)} keys are such as {list(self._found)[:3]} (expected the "
                "image_id, or the name of the image file; an image without masks is listed in "
                "'images', or has an array of no masks)"
            )
        where = f"mask file {self.path}, image {key}"
        if self.path.suffix == ".json":
            return masks_of_codes(self._found[key], output_size(record), where)
        size = output_size(record)
        array = read_array(self.path, size, where, self._found[key])
        return masks_of_array(array, size, where)


def _keys(record: Record) -> Iterator[str]:
    """Under what the masks of an image may be found."""
    if "image_id" in record:
        yield _plain(record["image_id"])
    if "file_name" in record:
        yield _plain(PurePath(record["file_name"]).stem)


def _plain(name: Any) -> str:
    """A name without extension; a number without leading zeros."""
    text = str(name)
    return str(int(text)) if text.isascii() and text.isdigit() else text


def _array_names(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise UnreadableFileError(f"mask file {path} cannot be read: {error}") from error
    return {_plain(name): name for name in names}


def _codes_by_image(path: Path) -> dict[str, list[Any]]:
    content: Any = read_json(path, Any, "the masks of all images")
    found: dict[str, list[Any]] = {}
    entries = content
    if isinstance(content, dict):
        entries = content.get("annotations")
        images = content.get("images")
        for image in images if isinstance(images, list) else []:
            if isinstance(image, dict) and "id" in image:
                codes = found.setdefault(_plain(image["id"]), [])
                if isinstance(image.get("file_name"), str):
                    found[_plain(PurePath(image["file_name"]).stem)] = codes
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
        found.setdefault(_plain(entry["image_id"]), []).append(entry)
    return found
