"""A file that only grows, of which a killed process loses no more than the entry it was writing."""

import hashlib
import os
from pathlib import Path

_LENGTH = 8  # bytes
_DIGEST = hashlib.sha256().digest_size


class Journal:
    """Entries behind each other, each with its length and its SHA-256.

    Opening reads the entries and cuts off what follows the last whole one.

    Attributes:
        entries: what was found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: what a full disk has refused is not written later.
        self._file = path.open("a+b", buffering=0)
        self.entries, size = self._read()
        os.truncate(path, size)

    def append(self, entry: bytes) -> None:
        """Add an entry. It survives the end of the process, not that of the machine."""
        digest = hashlib.sha256(entry).digest()
        left = memoryview(len(entry).to_bytes(_LENGTH, "little") + digest + entry)
        while left:
            left = left[self._file.write(left) :]

    def clear(self) -> None:
        """Remove all entries."""
        self.entries = []
        os.truncate(self.path, 0)

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def _read(self) -> tuple[list[bytes], int]:
        """The whole entries, and where they end."""
        entries, end = [], 0
        self._file.seek(0)
        while head := self._file.read(_LENGTH + _DIGEST):
            length = int.from_bytes(head[:_LENGTH], "little")
            left = self.path.stat().st_size - self._file.tell()
            entry = self._file.read(min(length, max(left, 0)))
            if len(entry) < length or hashlib.sha256(entry).digest() != head[_LENGTH:]:
                break
            entries.append(entry)
            end = self._file.tell()
        return entries, end
