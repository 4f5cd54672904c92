"""Reads TorchScript archives as data: parameters and buffers, without any of their code.

OpenAI published CLIP in such archives: zip files with a pickle of the module tree, one entry per
tensor storage, and the source of the module classes. ``torch.jit.load`` would compile that source;
here it is only searched for the names of parameters and buffers.
"""

import io
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.pickles import DAMAGE, ForbiddenPickleError, RestrictedUnpickler

_STORAGE_TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TYPED_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_DEEPEST_MODULE = 100

# What a damaged or malicious archive can raise; RuntimeError is for unsupported zip features.
ARCHIVE_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, *DAMAGE)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive; other zip files of torch contain no constants."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except ARCHIVE_DAMAGE:  # the next reader reports the reason
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The state dict of the module in a TorchScript archive, on the CPU.

    Raises:
        ForbiddenPickleError: the module tree contains something other than modules and plain
            values.
        Exception: one of ``ARCHIVE_DAMAGE`` if the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        return _Archive(archive).state_dict()


class _ScriptObject:
    """Replaces a module of a TorchScript class: its attributes, nothing callable."""

    qualified_name = ""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _Archive(RestrictedUnpickler):
    """One archive; unpickles its module tree."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        pickles = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(pickles) != 1:
            raise InputError("it contains no module tree (data.pkl)")
        root = pickles[0].removesuffix("data.pkl")
        if (
            f"{root}byteorder" in archive.namelist()
            and archive.read(f"{root}byteorder") != b"little"
        ):
            raise InputError("its tensors are big-endian")
        self._zip = archive
        self._root = root
        self._classes: dict[str, type[_ScriptObject]] = {}
        permitted: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            **{f"torch.jit._pickle.{name}": list for name in _TYPED_LISTS},
        }
        super().__init__(io.BytesIO(archive.read(pickles[0])), permitted)

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by dotted name."""
        return dict(self._named_tensors(self.load(), "", 0))

    def find_class(self, module: str, name: str) -> Any:
        """See ``pickle.Unpickler``: the archive's own classes become inert ones."""
        if module.split(".")[0] == "__torch__":
            qualified = f"{module}.{name}"
            if qualified not in self._classes:
                self._classes[qualified] = type(
                    name, (_ScriptObject,), {"qualified_name": qualified}
                )
            return self._classes[qualified]
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        return super().find_class(module, name)

    def persistent_load(self, pid: tuple[Any, ...]) -> Tensor:
        """See ``pickle.Unpickler``: a storage, as a flat tensor."""
        _, dtype, key, _, _ = pid
        content = bytearray(self._zip.read(f"{self._root}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)

    def _named_tensors(self, module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if not isinstance(module, _ScriptObject):
            raise ForbiddenPickleError(
                f"it contains a {type(module).__name__} where a module belongs"
            )
        if depth > _DEEPEST_MODULE:
            raise ForbiddenPickleError("its modules contain each other")
        declared = self._declared_tensors(module.qualified_name)
        for name, value in module.attributes.items():
            if isinstance(value, _ScriptObject):
                yield from self._named_tensors(value, f"{prefix}{name}.", depth + 1)
            elif name in declared and isinstance(value, Tensor):
                yield prefix + name, value

    def _declared_tensors(self, qualified_name: str) -> set[str]:
        """Names of the parameters and buffers of a class, as its source declares them."""
        module, _, name = qualified_name.rpartition(".")
        source = self._zip.read(f"{self._root}code/{module.replace('.', '/')}.py").decode()
        declaration = re.search(
            rf"^class {re.escape(name)}\(Module\):\n"
            r"\s*__parameters__ = \[(.*)\]\n\s*__buffers__ = \[(.*)\]\n",
            source,
            re.MULTILINE,
        )
        if declaration is None:
            raise InputError(f"the source of {qualified_name} declares no parameters and buffers")
        return set(re.findall(r'"([^"]+)"', " ".join(declaration.groups())))


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    try:
        return storage.as_strided(size, stride, offset)
    except RuntimeError as error:
        raise InputError(f"a tensor reaches beyond its storage: {error}") from error
