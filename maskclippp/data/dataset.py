"""The base class of all kinds of datasets: classes, layout and registration."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.data.layout import Layout
from maskclippp.errors import InputError
from maskclippp.words import Vocabulary, load_class_list


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A dataset. Its fields are the keys of an entry in builtin.yaml and in DATASETS.CUSTOM.

    Paths are absolute, or relative to the root of all datasets.

    Args:
        name: the dataset is registered under this name.
        images: folder of the images.
        annotations: JSON file, or folder of label maps.
        words: the name of a built-in class list (:mod:`maskclippp.words.class_files`), or the
            classes themselves.
        preparation: instructions for users who do not have the data.
    """

    name: str
    images: str
    annotations: str
    words: str | Vocabulary
    preparation: str

    @property
    def classes(self) -> Vocabulary:
        """The classes in contiguous order."""
        return load_class_list(self.words) if isinstance(self.words, str) else self.words

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, str]:
        """The path of each part, for messages."""

    @abstractmethod
    def metadata(self, root: Path) -> dict[str, Any]:
        """The metadata to register."""

    @abstractmethod
    def load(self, root: Path, *, check_files: bool = True) -> list[dict[str, Any]]:
        """Read the records.

        Args:
            check_files: check that all files exist, so that a run does not fail later.

        Raises:
            MissingFileError: says what is expected where, and how to prepare it.
            InputError: an annotation file is malformed, or does not fit the classes.
        """

    def layout(self, root: Path) -> Layout:
        """The parts below ``root``, for messages."""
        return Layout(self.name, root, self.parts, self.preparation)

    def register(self, root: Path, load: Callable[[], list[dict[str, Any]]] | None = None) -> None:
        """Register records and metadata under ``name``; no file of the dataset is read.

        Args:
            load: returns the records; default: :meth:`load`.
        """
        DatasetCatalog.register(self.name, load or partial(self.load, root))
        MetadataCatalog.pop(self.name, None)  # of an earlier registration
        MetadataCatalog.get(self.name).set(**self.metadata(root))

    def check_categories(
        self, categories: Sequence[Mapping[str, Any]], known_ids: Container[int], json_file: Path
    ) -> None:
        """Raise an InputError that lists the categories of a JSON that are not classes."""
        unknown = [category for category in categories if category["id"] not in known_ids]
        if unknown:
            listed = ", ".join(f"{c['id']} ({c.get('name')})" for c in unknown[:10])
            raise InputError(
                f"{json_file}: {len(unknown)} categories are not among the {len(self.classes)} "
                f"classes of dataset {self.name}: {listed}"
            )
