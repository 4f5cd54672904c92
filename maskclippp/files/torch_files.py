"""Reads what ``torch.save`` writes as data: tensors and plain containers."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.archives import (
    STORAGE_TYPES,
    TensorUnpickler,
    archive_unpickler,
    open_archive,
    rebuild_tensor,
)
from maskclippp.files.pickles import NUMPY_GLOBALS, RestrictedUnpickler, with_tensors
from maskclippp.files.torchscript import read_torchscript


def read_torch_zip(path: Path, *, verify: bool = True) -> Any:
    """The content of a zip file of torch: what was saved, or a TorchScript module's state dict.

    ``verify``: compare the tensors with their checksums.

    Raises:
        ForbiddenPickleError: names what it contains besides tensors and plain containers.
        Exception: one of ``ARCHIVE_DAMAGE`` if the file is damaged.
    """
    with open_archive(path, verify=verify) as archive:
        if archive.has("constants.pkl"):
            return read_torchscript(archive)
        return with_tensors(archive_unpickler(archive, TORCH_GLOBALS).load(), path.stat().st_size)


def read_legacy_torch(path: Path) -> Any:
    """The content of a file of torch before 1.6: five pickles, then the tensor storages.

    Raises:
        ForbiddenPickleError: names what it contains besides tensors and plain containers.
        Exception: one of ``ARCHIVE_DAMAGE`` if the file is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        size = len(stream)
        _, _, machine = (RestrictedUnpickler(stream, size, {}).load() for _ in range(3))
        if not machine["little_endian"]:
            raise InputError("its tensors are big-endian")
        storages = _LegacyStorages(size)
        content = TensorUnpickler(stream, size, TORCH_GLOBALS, storages.announced).load()
        storages.fill(stream, RestrictedUnpickler(stream, size, {}).load())
        return with_tensors(content, size)


class _LegacyStorages:
    """Storages whose bytes follow after the pickle that names them."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._storages: dict[str, Tensor] = {}

    def announced(self, key: str, size: int) -> Tensor:
        """The bytes of a storage, to be filled later."""
        if key not in self._storages:
            self._left -= size
            if size < 0 or self._left < 0:
                raise InputError("its storages are larger than the file")
            self._storages[key] = torch.empty(size, dtype=torch.uint8, device="cpu")
        return self._storages[key]

    def fill(self, stream: mmap.mmap, keys: list[str]) -> None:
        """Read all storages: the number of elements (8 bytes), then the elements."""
        if set(keys) != set(self._storages):
            raise InputError("it lacks tensor storages")
        for key in keys:
            storage = self._storages[key]
            content = stream.read(8 + len(storage))[8:]
            if len(content) < len(storage):
                raise InputError("it is cut off")
            storage.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def _size(lengths: tuple[int, ...] = ()) -> tuple[int, ...]:
    return tuple(lengths)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _device_name(name: str, *_: Any) -> str:
    return name


# All that a file of torch can ask for.
TORCH_GLOBALS: dict[str, Callable[..., Any] | torch.dtype] = {
    **NUMPY_GLOBALS,
    **STORAGE_TYPES,
    "torch.Size": _size,
    "torch.device": _device_name,
    **{str(dtype): dtype for dtype in STORAGE_TYPES.values()},
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
