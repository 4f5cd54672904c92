"""Metadata that is computed when it is first asked for, so that an import reads no class list."""

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata


class LazyMetadata(Metadata):
    """A dataset's metadata whose attributes, but for ``name``, come from a function."""

    __slots__ = ("_compute",)  # outside of __dict__, which holds the metadata themselves
    _compute: Callable[[], Mapping[str, Any]] | None

    def __init__(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self.__dict__["name"] = name
        object.__setattr__(self, "_compute", compute)

    def __getattr__(self, key: str) -> Any:
        # Python itself asks for private names, such as those of protocols of copying.
        if not key.startswith("_") and self._complete():
            return getattr(self, key)
        return super().__getattr__(key)

    def __setattr__(self, key: str, value: Any) -> None:
        self._complete()
        super().__setattr__(key, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain_metadata, (self.as_dict(),)  # copies and pickles are ordinary metadata

    def as_dict(self) -> dict[str, Any]:
        """All attributes."""
        self._complete()
        attributes: dict[str, Any] = super().as_dict()
        return attributes

    def _complete(self) -> bool:
        """Compute the attributes; whether that was still to be done."""
        compute = self._compute
        if compute is None:
            return False
        object.__setattr__(self, "_compute", None)
        self.set(**compute())
        return True


def register_metadata(name: str, compute: Callable[[], Mapping[str, Any]]) -> None:
    """Register the metadata of a dataset; ``compute`` is called once, when they are needed."""
    MetadataCatalog[name] = LazyMetadata(name, compute)


def _plain_metadata(attributes: Mapping[str, Any]) -> Metadata:
    metadata = Metadata()
    metadata.__dict__.update(attributes)
    return metadata
