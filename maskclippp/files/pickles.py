"""Reads pickles as data: only the globals of a table are accepted, and replaced by our functions.

Nothing that a pickle names is imported, called or modified. NumPy arrays become tensors.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch

# NumPy element types that torch has too, as pickles spell them.
_ELEMENT_TYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8"})

# What the unpickler can raise on a damaged or malicious stream.
DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class ForbiddenPickleError(pickle.UnpicklingError):
    """The pickle refers to something other than arrays and plain containers."""


class Permitted:
    """A global of the table, as a file sees it: can be called, but not modified."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise ForbiddenPickleError("it modifies a function")


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles plain containers and the globals of an allow-list.

    Args:
        file: the stream.
        permitted: ``module.name`` of each global, and the function that is called instead.
    """

    def __init__(self, file: BinaryIO, permitted: Mapping[str, Callable[..., Any]]) -> None:
        # Python 2 wrote text and bytes the same way; latin1 preserves every byte.
        super().__init__(file, encoding="latin1")
        self._permitted = permitted

    def find_class(self, module: str, name: str) -> Any:
        """See ``pickle.Unpickler``.

        Raises:
            ForbiddenPickleError: the global is not allowed.
        """
        if f"{module}.{name}" not in self._permitted:
            raise ForbiddenPickleError(f"it asks for {module}.{name}")
        return Permitted(self._permitted[f"{module}.{name}"])


def read_numpy_pickle(path: Path) -> Any:
    """The content of a pickle of numpy arrays and plain containers; arrays become tensors.

    Raises:
        ForbiddenPickleError: names what else it contains. None of it was executed.
        Exception: one of ``DAMAGE`` if the stream is damaged.
    """
    with path.open("rb") as file:
        return _with_tensors(RestrictedUnpickler(file, _NUMPY_GLOBALS).load(), {})


class _PickledType:
    """Replaces ``numpy.dtype``; its state adds the byte order."""

    def __init__(self, code: str, _align: object = False, _copy: object = False) -> None:
        if code not in _ELEMENT_TYPES:
            raise ForbiddenPickleError(
                f"it contains arrays of type {code!r}, which are not numbers"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _PickledArray:
    """Replaces an array whose content follows in the stream."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, element, fortran, content = state
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode("latin1")
        self.array = _to_array(content, element, shape, "F" if fortran else "C")


def _to_array(
    content: bytes | bytearray, element: _PickledType, shape: tuple[int, ...], order: Any
) -> np.ndarray:
    if not isinstance(content, bytes | bytearray) or not isinstance(element, _PickledType):
        raise ForbiddenPickleError("it contains an array of something other than numbers")
    return np.frombuffer(content, element.dtype).reshape(shape, order=order)


def _reconstruct(_subtype: object, _shape: object, _element: object) -> _PickledArray:
    return _PickledArray()


def _from_buffer(content: Any, element: Any, shape: Any, order: Any) -> _PickledArray:
    pickled = _PickledArray()
    pickled.array = _to_array(content, element, shape, order)
    return pickled


def _scalar(element: _PickledType, content: bytes | str) -> Any:
    data = content.encode("latin1") if isinstance(content, str) else content
    return _to_array(data, element, (), "C").item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ForbiddenPickleError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _refuse_array_type(*_: object) -> NoReturn:
    raise ForbiddenPickleError("it calls numpy.ndarray")


_NUMPY_GLOBALS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    # How protocol 2 writes bytes; empty ones have their own spelling.
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
    "numpy.ndarray": _refuse_array_type,
    "numpy.dtype": _PickledType,
    # NumPy 2 renamed its modules; the last two come with pickle protocol 5.
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}


def _with_tensors(content: Any, converted: dict[int, Any]) -> Any:
    """Replace arrays in plain containers by tensors that own their memory.

    ``converted``, by identity, preserves sharing: a pickle of a few bytes can contain a list 2^100
    times.
    """
    if id(content) in converted:
        return converted[id(content)]
    result = content
    if isinstance(content, _PickledArray):
        native = content.array.dtype.newbyteorder("=")
        result = torch.from_numpy(np.array(content.array, native, order="C"))
    elif isinstance(content, dict):
        result = {key: _with_tensors(value, converted) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        result = type(content)(_with_tensors(value, converted) for value in content)
    converted[id(content)] = result
    return result
