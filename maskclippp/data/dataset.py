"""What all kinds of datasets share: classes, layout and registration."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.layout import Layout
from maskclippp.words import Vocabulary, load_class_list


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A dataset below the root of all datasets; all paths are relative to that root.

    Args:
        name: it is registered under this name.
        images: folder of the images.
        class_list: the name of a shipped class list (:mod:`maskclippp.words.class_files`), or the
            classes themselves.
        preparation: instructions for users who do not have the data.
    """

    name: str
    images: str
    class_list: str | Vocabulary
    preparation: str

    @property
    def classes(self) -> Vocabulary:
        """The classes in contiguous order."""
        chosen = self.class_list
        return load_class_list(chosen) if isinstance(chosen, str) else chosen

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, str]:
        """The relative path of each part, for messages."""

    @abstractmethod
    def metadata(self, root: Path) -> dict[str, Any]:
        """The metadata to register."""

    @abstractmethod
    def load(self, root: Path) -> list[dict[str, Any]]:
        """Read the records; errors say what is expected where, and how to prepare it."""

    def layout(self, root: Path) -> Layout:
        """The parts below ``root``, for messages."""
        return Layout(self.name, root, self.parts, self.preparation)

    def register(self, root: Path) -> None:
        """Register records and metadata under ``name``; no file of the dataset is read."""
        DatasetCatalog.register(self.name, partial(self.load, root))
        MetadataCatalog.pop(self.name, None)  # of an earlier registration
        MetadataCatalog.get(self.name).set(**self.metadata(root))
