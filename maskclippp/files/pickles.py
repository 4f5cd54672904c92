"""Reads pickles as data: only the globals of a table are accepted, and replaced by our functions.

Nothing that a pickle names is imported, called or modified, and what it contains takes memory and
time in proportion to its size. NumPy arrays become tensors.
"""

import mmap
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch

# NumPy element types that torch has too, as pickles spell them.
_ELEMENT_TYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8"})
_KEY_TYPES = (str, bytes, int, float, bool, type(None))

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
    struct.error,
)


class ForbiddenPickleError(pickle.UnpicklingError):
    """The pickle refers to something other than arrays and plain containers."""


class Permitted:
    """A global of the table, as a file sees it: can be called, but not modified."""

    __slots__ = ("_function", "_spend")

    def __init__(self, function: Callable[..., Any], spend: Callable[[int], None]) -> None:
        self._function = function
        self._spend = spend

    def __call__(self, *arguments: Any) -> Any:
        sized = (str, bytes, bytearray, list, tuple)
        self._spend(sum(len(argument) for argument in arguments if isinstance(argument, sized)))
        return self._function(*arguments)


class Built:
    """Base of our stand-ins for objects that a pickle creates first and fills afterwards."""

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


# Its stub hides the attributes that only the unpickler written in Python has.
_PythonUnpickler: Any = pickle._Unpickler


class RestrictedUnpickler(_PythonUnpickler):
    """Unpickles plain containers and the globals of an allow-list.

    The unpickler written in Python is the base: the one in C allocates as many memo entries as a
    pickle of a few bytes demands.

    Args:
        file: the stream, with ``read`` and ``readline``; a read returns no more than there is.
        size: its length in bytes; functions get at most a few times as much as arguments.
        permitted: ``module.name`` of each global, and the function that is called instead.
    """

    dispatch: ClassVar = dict(_PythonUnpickler.dispatch)

    def __init__(
        self, file: Any, size: int, permitted: Mapping[str, Callable[..., Any] | torch.dtype]
    ) -> None:
        # Python 2 wrote text and bytes the same way; latin1 preserves every byte.
        super().__init__(file, encoding="latin1")
        self._permitted = permitted
        self._left = 4 * size + 2**20

    def find_class(self, module: str, name: str) -> Any:
        """See ``pickle.Unpickler``.

        Raises:
            ForbiddenPickleError: the global is not allowed.
        """
        if f"{module}.{name}" not in self._permitted:
            raise ForbiddenPickleError(f"it asks for {module}.{name}")
        found = self._permitted[f"{module}.{name}"]
        return found if isinstance(found, torch.dtype) else Permitted(found, self._spend)

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise ForbiddenPickleError("it converts the same content again and again")

    def load_build(self) -> None:
        """BUILD: fills an object; only our stand-ins take a state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, OrderedDict):
            return  # the metadata of a state dict
        if not isinstance(target, Built):
            kind = "function" if isinstance(target, Permitted) else type(target).__name__
            raise ForbiddenPickleError(f"it modifies a {kind}")
        target.__setstate__(state)

    def load_bytearray8(self) -> None:
        """BYTEARRAY8: without allocating the announced length first."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def load_setitem(self) -> None:
        """SETITEM."""
        check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """SETITEMS."""
        check_keys(self.stack[0::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """DICT."""
        check_keys(self.stack[0::2])
        super().load_dict()

    def load_additems(self) -> None:
        """ADDITEMS."""
        check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """FROZENSET."""
        check_keys(self.stack)
        super().load_frozenset()

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys whose hash takes exponential time: tuples that contain each other twice."""
    for key in keys:
        parts = key if type(key) is tuple else (key,)
        if not all(isinstance(part, _KEY_TYPES) for part in parts):
            raise ForbiddenPickleError(f"it uses a {type(key).__name__} as a key")


def read_numpy_pickle(path: Path) -> Any:
    """The content of a pickle of numpy arrays and plain containers; arrays become tensors.

    Raises:
        ForbiddenPickleError: names what else it contains. None of it was executed.
        Exception: one of ``DAMAGE`` if the stream is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        size = len(stream)
        return with_tensors(RestrictedUnpickler(stream, size, NUMPY_GLOBALS).load(), size)


class _PickledType(Built):
    """Replaces ``numpy.dtype``; its state adds the byte order."""

    def __init__(self, code: str, _align: object = False, _copy: object = False) -> None:
        if code not in _ELEMENT_TYPES:
            raise ForbiddenPickleError(
                f"it contains arrays of type {code!r}, which are not numbers"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _PickledArray(Built):
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


def _ordered(pairs: Sequence[tuple[Any, Any]] = ()) -> OrderedDict[Any, Any]:
    check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _counter(counts: Mapping[Any, int] | None = None) -> Counter[Any]:
    return Counter(counts or {})


def _set(elements: Sequence[Any] = ()) -> set[Any]:
    check_keys(elements)
    return set(elements)


def _refuse_array_type(*_: object) -> NoReturn:
    raise ForbiddenPickleError("it calls numpy.ndarray")


PLAIN_GLOBALS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "__builtin__.set": _set,
    "builtins.set": _set,  # as protocol 3 spells it
    # How protocol 2 writes bytes; empty ones have their own spelling.
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
}
NUMPY_GLOBALS: dict[str, Callable[..., Any]] = {
    **PLAIN_GLOBALS,
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


def with_tensors(content: Any, size: int) -> Any:
    """Replace arrays in plain containers by tensors that own their memory.

    Args:
        content: what a pickle contained.
        size: of the file in bytes, the most that its arrays can take.

    Raises:
        ForbiddenPickleError: arrays share their content and would take more.
    """
    return _Conversion(size).convert(content)


class _Conversion:
    """One conversion; preserves sharing, as a short pickle can contain a list 2^100 times."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._converted: dict[int, Any] = {}

    def convert(self, content: Any) -> Any:
        if id(content) in self._converted:
            return self._converted[id(content)]
        result = content
        if isinstance(content, _PickledArray):
            self._left -= content.array.nbytes
            if self._left < 0:
                raise ForbiddenPickleError("its arrays share their content")
            native = content.array.dtype.newbyteorder("=")
            result = torch.from_numpy(np.array(content.array, native, order="C"))
        elif isinstance(content, dict):
            result = {key: self.convert(value) for key, value in content.items()}
        elif isinstance(content, list | tuple):
            result = type(content)(self.convert(value) for value in content)
        self._converted[id(content)] = result
        return result
