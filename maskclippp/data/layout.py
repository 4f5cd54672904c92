"""Locations of datasets, and errors that give the expected files and how to prepare them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskclippp.errors import MissingFileError

ROOT_VARIABLE = "DETECTRON2_DATASETS"
SHOWN_FILES = 10
# Split folders of ADE20K and of the prepared PASCAL sets.
SPLIT_FOLDERS = {"train": "training", "val": "validation"}


def datasets_root() -> Path:
    """``$DETECTRON2_DATASETS`` (default ``datasets``) as an absolute path."""
    return Path(os.environ.get(ROOT_VARIABLE, "datasets")).expanduser().absolute()


@dataclass(frozen=True)
class Layout:
    """The parts of a dataset below a root, for error messages.

    Args:
        parts: path of each part, by what it contains ("images").
        preparation: instructions for users who do not have the data.
    """

    dataset_name: str
    root: Path
    parts: Mapping[str, str]
    preparation: str

    def missing(self, path: Path, what: str = "this file") -> MissingFileError:
        """The error for a path that does not exist or has the wrong contents."""
        return MissingFileError(f"expected {what}: {path}\n{self}")

    def require(self, path: Path) -> Path:
        """The path of a file; a MissingFileError if it does not exist."""
        if not path.is_file():
            raise self.missing(path)
        return path

    def require_files(self, kind: str, files: Sequence[str]) -> None:
        """Raise a MissingFileError with the number of missing files and the first ten of them.

        Each folder is listed only once, so that checking 100,000 files takes about a second.
        """
        absent = _absent(files)
        if absent:
            more = f"\n  and {len(absent) - SHOWN_FILES} more" if len(absent) > SHOWN_FILES else ""
            listed = "\n  ".join(absent[:SHOWN_FILES])
            raise MissingFileError(
                f"{len(absent)} of {len(files)} {kind} do not exist:\n  {listed}{more}\n{self}"
            )

    def __str__(self) -> str:
        setting = os.environ.get(ROOT_VARIABLE, "not set (default: datasets)")
        width = max(map(len, self.parts)) + 1
        return "\n".join(
            [
                f"dataset {self.dataset_name} consists of",
                *(f"  {kind + ':':<{width}} {self.root / p}" for kind, p in self.parts.items()),
                f"  {ROOT_VARIABLE} is {setting}, the root of this dataset is {self.root}",
                f"  How to prepare it: {self.preparation}",
            ]
        )


def _absent(files: Iterable[str]) -> list[str]:
    names_in: dict[str, frozenset[str]] = {}
    absent = []
    for file in files:
        folder, name = os.path.split(file)
        if folder not in names_in:
            names_in[folder] = (
                frozenset(os.listdir(folder))  # noqa: PTH208 - names alone, of a huge folder
                if Path(folder).is_dir()
                else frozenset()
            )
        if name not in names_in[folder]:
            absent.append(file)
    return absent
