"""Makes ``import detectron2`` work with the installed package, or else the embedded engine.

detectron2 is not on PyPI. If it is not installed, ``maskclippp/embedded`` (our own implementation
of the names that we use) is appended to ``sys.path``. An installed detectron2 takes precedence.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from typing_extensions import override

_EMBEDDED_FOLDER = Path(__file__).resolve().parent / "embedded"


def ensure_detectron2() -> None:
    """Append the embedded engine to ``sys.path`` if detectron2 is not installed."""
    found = importlib.util.find_spec("detectron2")
    # A folder of that name without a package in it, such as a clone of detectron2, has no origin.
    if found is None or found.origin is None:
        sys.path.append(str(_EMBEDDED_FOLDER))


def call_after_import(module: str, function: Callable[[], Any]) -> None:
    """Call a function as soon as a module has been imported: now, if it has been already."""
    if module in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, _Watch(module, function))


class _Watch(MetaPathFinder):
    """Finds one module, once, as the other finders do, with a loader that then calls a function."""

    def __init__(self, module: str, function: Callable[[], Any]) -> None:
        self._module = module
        self._function = function

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _CallingLoader(spec.loader, self._function)
        return spec


class _CallingLoader(Loader):
    """A loader that calls a function after executing its module."""

    def __init__(self, loader: Loader, function: Callable[[], Any]) -> None:
        self._loader = loader
        self._function = function

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    @override
    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        # What inspects the module later finds the loader that knows its files.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._function()


def is_embedded() -> bool:
    """Whether ``import detectron2`` gives the embedded engine."""
    import detectron2

    return Path(detectron2.__file__).resolve().is_relative_to(_EMBEDDED_FOLDER)


def engine_description() -> str:
    """One line: which detectron2 is used, and where it is."""
    import detectron2

    kind = "embedded" if is_embedded() else "installed"
    location = Path(detectron2.__file__).resolve().parent
    return f"detectron2 engine: {kind}, version {detectron2.__version__} ({location})"
