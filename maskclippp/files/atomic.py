"""Files that are either whole or absent, and JSON that every reader understands."""

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write into; ``path`` gets the content at the end of the block, or not at all.

    The content goes to a temporary file of a name of its own in the same folder, which is renamed
    at the end; of several processes that write one path at a time, the last one wins.

    Args:
        durable: force the content to the disk first, so that a power cut leaves no empty file
            under the name. It takes milliseconds: too long for very many small files.
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


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as :func:`json_value` converts it: standard JSON, whole or not at all."""
    text = json.dumps(json_value(content), indent=1, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text.encode())


def json_value(value: Any) -> Any:
    """The value in JSON's types: scalars of numpy and torch become numbers, keys become texts.

    NaN and the infinities, which JSON does not know, become null.
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
    """Force the folder's list of names to the disk, so that a rename survives a power cut."""
    if os.name != "posix":  # only POSIX systems can open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
