"""The zip archives of torch, read as data: every member once, checked, never more than the file."""

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.pickles import DAMAGE, ForbiddenPickleError, RestrictedUnpickler

STORAGE_TYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}
_LENGTHS_OFFSET = 26  # in a member's header: the lengths of its name and of extra data
# An expanded tensor repeats few numbers; what works on it takes memory for all elements.
_LARGEST_EXPANDED = 2**28
_LARGEST_TEXT = 2**26  # bytes of all compressed members: the code of TorchScript archives

# What a damaged or malicious archive can raise; RuntimeError is for unsupported zip features.
ARCHIVE_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, *DAMAGE)


class Archive:
    """The members of an open archive.

    Args:
        opened: the archive.
        file: the same file.
        size: its length in bytes.
        verify: compare tensors with their checksums.

    Raises:
        InputError: it has no or several pickles, big-endian tensors, two members of one name, or
            members that are larger than the file.
    """

    def __init__(
        self, opened: zipfile.ZipFile, file: io.BufferedIOBase, size: int, *, verify: bool
    ) -> None:
        self._zip = opened
        self._file = file
        self._verify = verify
        members = opened.infolist()
        self._members = {member.filename: member for member in members}
        compressed = [m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED]
        if (
            len(members) > len(self._members)
            or sum(member.compress_size for member in members) > size
            or sum(compressed) > _LARGEST_TEXT
        ):
            raise InputError("its members overlap, or are compressed")
        pickles = [name for name in self._members if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(pickles) != 1:
            raise InputError("it contains no data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")
        if self.read("byteorder", b"little") != b"little":
            raise InputError("its tensors are big-endian")
        self._storages: dict[str, Tensor] = {}

    def has(self, name: str) -> bool:
        """Whether there is a member of that name."""
        return self.root + name in self._members

    def read(self, name: str, default: bytes | None = None) -> bytes:
        """The content of a member."""
        if default is not None and not self.has(name):
            return default
        return self._zip.read(self._members[self.root + name])

    def storage(self, key: str, _: int = 0) -> Tensor:
        """The bytes of a tensor storage, uint8; the same tensor each time."""
        if key not in self._storages:
            self._storages[key] = self._read_storage(f"{self.root}data/{key}")
        return self._storages[key]

    def _read_storage(self, name: str) -> Tensor:
        member = self._members[name]
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise InputError(f"the tensor storage {name} is compressed, which torch never does")
        content = torch.empty(member.file_size, dtype=torch.uint8, device="cpu")
        self._zip.open(member).close()  # checks the header
        self._file.seek(member.header_offset + _LENGTHS_OFFSET)
        self._file.seek(sum(struct.unpack("<HH", self._file.read(4))), os.SEEK_CUR)
        if self._file.readinto(content.numpy().data) != member.file_size:
            raise InputError(f"the tensor storage {name} is cut off")
        if self._verify and zlib.crc32(content.numpy().data) != member.CRC:
            raise InputError(f"the checksum of the tensor storage {name} is wrong")
        return content


class TensorUnpickler(RestrictedUnpickler):
    """Unpickles tensors whose storages are stored apart from the pickle.

    ``read_storage`` returns the bytes [N] of the storage of a name; it also gets their number N
    according to the pickle.
    """

    def __init__(
        self,
        file: Any,
        size: int,
        permitted: Mapping[str, Callable[..., Any] | torch.dtype],
        read_storage: Callable[[str, int], Tensor],
    ) -> None:
        super().__init__(file, size, permitted)
        self._read_storage = read_storage

    def persistent_load(self, pid: Any) -> Tensor:
        """See ``pickle.Unpickler``: a storage, as a flat tensor."""
        _, dtype, key, _, count = pid[:5]
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and isinstance(count, int)):
            raise ForbiddenPickleError("it names a storage of something other than numbers")
        return self._read_storage(key, count * dtype.itemsize).view(dtype)


def rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """The tensor that is a view of its storage."""
    try:
        tensor = storage.as_strided(size, stride, offset)
    except RuntimeError as error:
        raise InputError(f"a tensor reaches beyond its storage: {error}") from error
    if tensor.numel() > max(storage.numel(), _LARGEST_EXPANDED):
        raise InputError("a tensor repeats its storage too often")
    return tensor


@contextmanager
def open_archive(path: Path, *, verify: bool = True) -> Iterator[Archive]:
    """Open a zip file of torch; one of ``ARCHIVE_DAMAGE`` if it is damaged."""
    with path.open("rb") as file, zipfile.ZipFile(path) as opened:
        yield Archive(opened, file, path.stat().st_size, verify=verify)


def archive_unpickler(
    archive: Archive, permitted: Mapping[str, Callable[..., Any] | torch.dtype]
) -> TensorUnpickler:
    """The unpickler of the archive's ``data.pkl``."""
    content = archive.read("data.pkl")
    return TensorUnpickler(io.BytesIO(content), len(content), permitted, archive.storage)
