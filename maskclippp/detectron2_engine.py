"""Makes ``import detectron2`` work with the installed package, or else the embedded engine.

detectron2 is not on PyPI. If it is not installed, ``maskclippp/embedded`` (our own implementation
of the names that we use) is appended to ``sys.path``. An installed detectron2 takes precedence.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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

    @contextmanager
    def calling() -> Iterator[None]:
        yield
        function()

    if module in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, _Watch(module, calling))


def import_without(module: str, package: str) -> None:
    """Let a module be imported as if an optional package that it tries to import were missing."""

    @contextmanager
    def hiding() -> Iterator[None]:
        hidden = sys.modules.setdefault(package, None) is None  # type: ignore[arg-type]
        try:
            yield
        finally:
            if hidden:
                del sys.modules[package]

    if module not in sys.modules:
        sys.meta_path.insert(0, _Watch(module, hiding))


class _Watch(MetaPathFinder):
    """Finds one module, once, as the other finders do, and has it executed in a context."""

    def __init__(self, module: str, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._module = module
        self._context = context

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderInContext(spec.loader, self._context())
        return spec


class _LoaderInContext(Loader):
    """A loader that executes its module in a context."""

    def __init__(self, loader: Loader, context: AbstractContextManager[None]) -> None:
        self._loader = loader
        self._context = context

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    @override
    def exec_module(self, module: ModuleType) -> None:
        # What inspects the module finds the loader that knows its files.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with self._context:
            self._loader.exec_module(module)


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
