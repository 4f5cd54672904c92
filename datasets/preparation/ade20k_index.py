"""The index of the full ADE20K (``index_ade20k.pkl``), read without executing anything in it.

The pickle is a dictionary of lists and arrays, most of its 780 MB being object counts per image.
Numeric arrays are dropped; string arrays become lists.

The module has its own stand-ins for numpy's constructors because :mod:`maskclippp.files.pickles`
refuses string and object arrays on purpose: checkpoints, which it is made for, have none.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.pickles import DAMAGE, Built, ForbiddenPickleError, RestrictedUnpickler


def read_image_paths(index_file: Path) -> list[Path]:
    """The images of the dataset in the order of the index, relative to the datasets' root.

    Raises:
        MissingFileError: the file does not exist.
        InputError: it is damaged, or not this index; names the file.
    """
    if not index_file.is_file():
        raise MissingFileError(
            f"{index_file} does not exist: it is part of ADE20K_2021_17_01.zip, which "
            "https://ade20k.csail.mit.edu/request_data/ gives to registered users"
        )
    try:
        with index_file.open("rb") as file:
            size = index_file.stat().st_size
            index = RestrictedUnpickler(file, size, _INDEX_GLOBALS).load()
    except DAMAGE as error:
        raise InputError(f"{index_file} cannot be read as ADE20K's index: {error!r}") from error
    columns = [_column(index, key, index_file) for key in ("folder", "filename")]
    if len(columns[0]) != len(columns[1]):
        raise InputError(
            f"{index_file} names {len(columns[0])} folders and {len(columns[1])} files"
        )
    return [Path(folder) / name for folder, name in zip(*columns, strict=True)]


def _column(index: Any, key: str, index_file: Path) -> list[str]:
    values = index.get(key) if isinstance(index, dict) else None
    if isinstance(values, _Array):
        values = values.texts
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise InputError(f"{index_file} is not ADE20K's index: it has no list {key!r} of strings")
    return list(values)


class _ElementType(Built):
    """Replaces ``numpy.dtype``; its state adds the byte order."""

    def __init__(self, code: str, align: object = False, copy: object = False) -> None:
        self.code = code
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


class _Array(Built):
    """Replaces ``numpy.ndarray``; keeps the content of string and object arrays only."""

    texts: list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, _, element, _, content = state
        self.texts = _texts(element, content)


def _texts(element: Any, content: Any) -> list[Any] | None:
    if not isinstance(element, _ElementType):
        raise ForbiddenPickleError("it holds an array of unknown type")
    if isinstance(content, list):  # of objects
        return content
    if element.code.startswith("U") and isinstance(content, bytes | bytearray):
        kind = np.dtype(f"{element.byte_order}{element.code}")
        texts: list[Any] = np.frombuffer(content, kind).tolist()
        return texts
    return None


def _reconstruct(subtype: object, shape: object, element: object) -> _Array:
    return _Array()


def _from_buffer(content: Any, element: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.texts = _texts(element, content)
    return array


def _scalar(element: Any, content: object) -> Any:
    texts = _texts(element, content)
    return None if texts is None else texts[0]


def _bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # how protocol 2 encodes bytes


def _nothing(*arguments: object) -> None:
    return None


_INDEX_GLOBALS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _bytes,
    "numpy.ndarray": _nothing,  # only an argument of _reconstruct
    "numpy.dtype": _ElementType,
    # numpy 2 renamed its modules; pickle protocol 5 uses _frombuffer.
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}
