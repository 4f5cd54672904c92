"""Atomic file writing, folders for it, and JSON that every parser reads."""

import json
import math
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO

from maskclippp.errors import InputError, UnreadableFileError

_ANOTHER = "choose another folder"
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to; at the end of the block it becomes ``path``, whole or not at all.

    The content goes to a uniquely named temporary file in the same folder, which is then renamed.
    If several processes write one path at the same time, the last one wins.

    Args:
        durable: flush the content to the disk first, so that a power failure does not leave an
            empty file. It takes milliseconds, too long for very many small files.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def make_folder(folder: Path, what: str = "", remedy: str = _ANOTHER) -> None:
    """Make a folder if it is missing, and check that files can be written there.

    See :func:`explaining` for the arguments and errors.
    """
    with explaining(folder, what, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")  # a full disk may have room for an empty file


@contextmanager
def explaining(path: Path, what: str = "", remedy: str = _ANOTHER) -> Iterator[None]:
    """Say of errors within that a file or folder cannot be written.

    Args:
        what: the path, for messages.
        remedy: what to do.

    Raises:
        UnreadableFileError: instead of another OSError.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise UnreadableFileError(
            f"{what} {path} cannot be written ({error.strerror or error}): {remedy}".strip()
        ) from error


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove the temporary files of killed processes from a folder.

    Args:
        folder: which nobody else writes, unless ``older_than`` is given.
        older_than: the least age in seconds.
    """
    for file in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process may be faster
            if _TEMPORARY.fullmatch(file.name) and time.time() - file.stat().st_mtime >= older_than:
                file.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write ``content``, converted by :func:`json_value`, atomically as standard JSON."""
    text = json.dumps(json_value(content), indent=1, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text.encode())


def json_value(value: Any) -> Any:
    """Convert to JSON types: NumPy and torch scalars become numbers, keys become strings.

    NaN and infinities, which JSON does not have, become null.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, list | tuple):
        return [json_value(entry) for entry in value]
    number = float(value)
    return number if math.isfinite(number) else None


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power failure."""
    if os.name != "posix":  # only POSIX systems can open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
