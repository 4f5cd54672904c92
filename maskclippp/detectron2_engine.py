"""Makes ``import detectron2`` work with the installed package, or else the embedded engine.

detectron2 is not on PyPI. If it is not installed, ``maskclippp/embedded`` (our own implementation
of the names that we use) is appended to ``sys.path``. An installed detectron2 takes precedence.
"""

import importlib.util
import sys
from pathlib import Path

_EMBEDDED_FOLDER = Path(__file__).resolve().parent / "embedded"


def ensure_detectron2() -> None:
    """Append the embedded engine to ``sys.path`` if detectron2 is not installed."""
    found = importlib.util.find_spec("detectron2")
    # A folder of that name without a package in it, such as a clone of detectron2, has no origin.
    if found is None or found.origin is None:
        sys.path.append(str(_EMBEDDED_FOLDER))


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
