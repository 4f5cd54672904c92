"""Two catalogs: how to load a dataset, and its metadata."""

import logging
from collections import UserDict
from collections.abc import Callable
from typing import Any

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class _DatasetCatalog(UserDict[str, Callable[[], list[dict[str, Any]]]]):
    """Functions that load the records of a dataset, by its name."""

    def register(self, name: str, func: Callable[[], list[dict[str, Any]]]) -> None:
        """Register the function, without arguments, that loads the dataset ``name``.

        Raises:
            AssertionError: ``func`` is not callable, or the name is taken.
        """
        assert callable(func), "You must register a function with `DatasetCatalog.register`!"
        assert name not in self, f"Dataset '{name}' is already registered!"
        self[name] = func

    def get(self, name: str) -> list[dict[str, Any]]:  # type: ignore[override]
        """Load the records of a dataset.

        Raises:
            KeyError: unknown name; the message lists the registered ones.
        """
        if name not in self:
            available = ", ".join(self)
            raise KeyError(
                f"Dataset '{name}' is not registered! Available datasets are: {available}"
            )
        return self[name]()

    def list(self) -> "list[str]":
        """The names, in order of registration."""
        return [*self]

    def remove(self, name: str) -> None:
        """Unregister a dataset; KeyError if it is not registered."""
        self.pop(name)


class Metadata:
    """Attributes of one dataset, such as its class names.

    Setting an attribute again to a different value is an AssertionError: a dataset must not mean
    two things in one run.
    """

    name: str = "N/A"

    _RENAMED = {  # noqa: RUF012  a constant
        "class_names": "thing_classes",
        "dataset_id_to_contiguous_id": "thing_dataset_id_to_contiguous_id",
        "stuff_class_names": "stuff_classes",
    }

    def __getattr__(self, key: str) -> Any:
        if key in self._RENAMED:
            new_key = self._RENAMED[key]
            logging.getLogger(__name__).warning("Metadata '%s' is now called '%s'", key, new_key)
            return getattr(self, new_key)
        known = sorted(set(self.__dict__) - {"name"})
        where = f"Attribute '{key}' does not exist in the metadata of dataset '{self.name}'"
        if not known:
            raise AttributeError(f"{where}: metadata is empty.")
        raise AttributeError(f"{where}. Available keys are {known}.")

    def __setattr__(self, key: str, value: Any) -> None:
        key = self._RENAMED.get(key, key)
        if key in self.__dict__:
            old = self.__dict__[key]
            assert old == value, (
                f"Attribute '{key}' in the metadata of '{self.name}' cannot be set to a different "
                f"value!\n{old} != {value}"
            )
        else:
            super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy of all attributes, ``name`` included."""
        return dict(self.__dict__)

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several attributes; returns this object."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` if it is not set."""
        return getattr(self, key, default)


class _MetadataCatalog(UserDict[str, Metadata]):
    """The :class:`Metadata` of datasets, by name."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """The metadata of a dataset; created empty on first use."""
        assert name, "the name of a dataset must not be empty"
        if name not in self:
            metadata = Metadata()
            metadata.name = name
            self[name] = metadata
        return self[name]

    def list(self) -> list[str]:
        """The names that have metadata, in order of creation."""
        return [*self]

    def remove(self, name: str) -> None:
        """Remove an entry; KeyError if there is none."""
        self.pop(name)


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
