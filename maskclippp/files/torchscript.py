"""Reads TorchScript archives as data: parameters and buffers, without any of their code.

OpenAI published CLIP in such archives: zip files with a pickle of the module tree, one entry per
tensor storage, and the source of the module classes. ``torch.jit.load`` would compile that source;
here it is only searched for the names of parameters and buffers.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.archives import STORAGE_TYPES, Archive, TensorUnpickler, rebuild_tensor
from maskclippp.files.pickles import PLAIN_GLOBALS, Built, ForbiddenPickleError

_TYPED_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_DEEPEST_MODULE = 100
_MOST_MODULES = 100_000


def read_torchscript(archive: Archive) -> dict[str, Tensor]:
    """The state dict of the module in a TorchScript archive, on the CPU.

    Raises:
        ForbiddenPickleError: the module tree contains something other than modules and plain
            values.
        Exception: one of ``ARCHIVE_DAMAGE`` if the file is damaged.
    """
    return _ModuleTree(archive).state_dict()


class _ScriptObject(Built):
    """Replaces a module of a TorchScript class: its attributes, nothing callable."""

    qualified_name = ""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _ModuleTree(TensorUnpickler):
    """Unpickles the module tree of one archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._classes: dict[str, type[_ScriptObject]] = {}
        self._declared: dict[str, set[str]] = {}
        self._visited = 0
        content = archive.read("data.pkl")
        super().__init__(io.BytesIO(content), len(content), SCRIPT_GLOBALS, archive.storage)

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
        return super().find_class(module, name)

    def _named_tensors(self, module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if not isinstance(module, _ScriptObject):
            raise ForbiddenPickleError(
                f"it contains a {type(module).__name__} where a module belongs"
            )
        self._visited += 1
        if depth > _DEEPEST_MODULE or self._visited > _MOST_MODULES:
            raise ForbiddenPickleError("its modules contain each other")
        declared = self._declared_tensors(module.qualified_name)
        for name, value in module.attributes.items():
            if isinstance(value, _ScriptObject):
                yield from self._named_tensors(value, f"{prefix}{name}.", depth + 1)
            elif name in declared and isinstance(value, Tensor):
                yield prefix + name, value

    def _declared_tensors(self, qualified_name: str) -> set[str]:
        """Names of the parameters and buffers of a class, as its source declares them."""
        if qualified_name in self._declared:
            return self._declared[qualified_name]
        module, _, name = qualified_name.rpartition(".")
        source = self._archive.read(f"code/{module.replace('.', '/')}.py").decode()
        declaration = re.search(
            rf"^class {re.escape(name)}\(Module\):\n"
            r"\s*__parameters__ = \[(.*)\]\n\s*__buffers__ = \[(.*)\]\n",
            source,
            re.MULTILINE,
        )
        if declaration is None:
            raise InputError(f"the source of {qualified_name} declares no parameters and buffers")
        names = set(re.findall(r'"([^"]+)"', " ".join(declaration.groups())))
        self._declared[qualified_name] = names
        return names


def _typed_list(elements: list[Any]) -> list[Any]:
    if not isinstance(elements, list):
        raise ForbiddenPickleError(f"it makes a list of a {type(elements).__name__}")
    return elements


def _without_type_tag(value: Any, _: str) -> Any:
    return value


SCRIPT_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": PLAIN_GLOBALS["collections.OrderedDict"],
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    **{f"torch.jit._pickle.{name}": _typed_list for name in _TYPED_LISTS},
    "torch.jit._pickle.restore_type_tag": _without_type_tag,
    **STORAGE_TYPES,
}
