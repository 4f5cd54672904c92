"""The seal of our checkpoints: their SHA-256 and what they belong to, in the zip file's comment.

Every zip reader ignores the comment, so that the files keep torch's format. The hash covers all
bytes before it, with the comment's length (the last two of them) as zero, and the facts.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from maskclippp.files.signatures import ZIP, first_bytes

_MARK = b"MaskCLIP++ sha256 "
_DIGITS = 64
_BLOCK = 2**20


class SealError(ValueError):
    """The content of a file is not what was written."""


class SealingWriter:
    """Writes to a file and computes the hash of what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, content: Any) -> int:
        """See ``BinaryIO``."""
        self._digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """See ``BinaryIO``."""
        self._file.flush()

    def seal(self, facts: Mapping[str, Any]) -> None:
        """Append the seal to the finished zip file; nothing may be written afterwards."""
        text = json.dumps(facts).encode()
        self._digest.update(text)
        comment = _MARK + self._digest.hexdigest().encode() + text
        self._file.seek(-2, 2)
        self._file.write(len(comment).to_bytes(2, "little") + comment)


def is_sealed(path: Path) -> bool:
    """Whether a zip file has a seal; a BadZipFile if it is damaged."""
    return _comment(path).startswith(_MARK)


def read_seal(path: Path) -> dict[str, Any] | None:
    """The facts in the seal of a file, unverified; {"run": ""} without one, None if damaged."""
    try:
        comment = _comment(path)
        return _parse(comment)[1] if comment.startswith(_MARK) else {"run": ""}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None


def verify_seal(path: Path) -> None:
    """Raise a SealError if the content of a file does not fit its seal."""
    comment = _comment(path)
    expected, _ = _parse(comment)
    digest, left = hashlib.sha256(), path.stat().st_size - len(comment) - 2
    with path.open("rb") as file:
        while left and (block := file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
    digest.update(b"\0\0" + comment[len(_MARK) + _DIGITS :])
    if digest.hexdigest() != expected:
        raise SealError("its SHA-256 is not the one that was written with it")


def _comment(path: Path) -> bytes:
    if first_bytes(path)[: len(ZIP)] != ZIP:
        raise SealError("it is no zip file")
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        comment = archive.comment
        file.seek(-len(comment) - 2, 2)
        if int.from_bytes(file.read(2), "little") != len(comment):
            raise SealError("its end is cut off")
    return comment


def _parse(comment: bytes) -> tuple[str, dict[str, Any]]:
    """The hash and the facts of a seal; a ValueError if it is damaged."""
    content = comment.removeprefix(_MARK)
    facts = json.loads(content[_DIGITS:])
    if not isinstance(facts, dict):
        raise SealError("its seal is damaged")
    return content[:_DIGITS].decode("ascii"), facts
