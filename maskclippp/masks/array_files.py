"""NumPy files of masks, whose headers are checked before memory is taken."""

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maskclippp.errors import InputError, UnreadableFileError

_LARGEST = 2**32  # bytes of the masks of one image
# RuntimeError is for zip features, SyntaxError and TokenError are for headers.
_DAMAGE = (
    *(OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError),
    *(TypeError, KeyError, IndexError, MemoryError, OverflowError, struct.error),
    tokenize.TokenError,
)


def read_array(
    path: Path, size: tuple[int, int], where: str, member: str = "masks"
) -> NDArray[Any]:
    """The masks [Q, H, W] or ids [H, W] of one image in a ``.npy`` or ``.npz`` file.

    Args:
        path: the file.
        size: height and width of the image.
        where: the file, and the place in it, for messages.
        member: the name of the array in an ``.npz`` file.

    Raises:
        UnreadableFileError: the file cannot be read.
        InputError: there is no such array, or it cannot be that of the image.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".npy":
                return _read_stream(file, size, where, path.stat().st_size)
            with zipfile.ZipFile(file) as archive:
                members = {info.filename: info for info in archive.infolist()}
                found = members.get(f"{member}.npy")
                if found is None:
                    names = [name.removesuffix(".npy") for name in members]
                    raise InputError(f"{where}: expected an array {member!r}, found only {names}")
                with archive.open(found) as stream:
                    return _read_stream(stream, size, where, found.file_size)
    except InputError:
        raise
    except _DAMAGE as error:
        raise UnreadableFileError(f"{where} cannot be read: {error}") from error


def check_shape(
    shape: tuple[int, ...], size: tuple[int, int], where: str, dtype: Any = np.bool_
) -> None:
    """Raise an InputError if an array cannot be the masks of an image, or is too large."""
    if len(shape) not in (2, 3):
        raise InputError(f"{where}: expected [Q, H, W] masks or [H, W] ids, found shape {shape}")
    check_size(shape[-2:], size, where)
    if math.prod(shape) * np.dtype(dtype).itemsize > _LARGEST:
        raise InputError(
            f"{where}: {shape[0]} masks of {size[0]} x {size[1]} pixels take more than "
            f"{_LARGEST / 2**30:.0f} GiB; save fewer, as bool"
        )


def check_size(found: Any, expected: tuple[int, int], where: str) -> None:
    """Raise an InputError if a (height, width) is not that of the image."""
    if tuple(found) != expected:
        raise InputError(
            f"{where} is {' x '.join(map(str, found))}, but its image is {expected[0]} x "
            f"{expected[1]} (height x width): masks must have the image's original size"
        )


def _read_stream(file: IO[bytes], size: tuple[int, int], where: str, length: int) -> NDArray[Any]:
    """The array in a stream of ``length`` bytes."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays are pickles, which are not read")
    check_shape(shape, size, where, dtype)
    expected = math.prod(shape) * dtype.itemsize
    if length - file.tell() != expected:
        raise ValueError(f"its header announces {expected} bytes of {dtype}")
    content = file.read(expected)
    if len(content) != expected or file.read(1):  # the end of a member compares its checksum
        raise ValueError("it is cut off")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
