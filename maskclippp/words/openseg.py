"""The OpenSeg class lists, which the published numbers are based on (Ghiasi et al., ECCV 2022).

They are not part of this project: ``maskclippp download vocabularies`` downloads them from their
origin into the user's cache. ``openseg.tsv`` has their hashes and the datasets that they are for.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.cache import cache_folder
from maskclippp.files.downloads import RemoteFile
from maskclippp.files.signatures import sha256_of_file
from maskclippp.words.class_files import read_vocabulary
from maskclippp.words.vocabulary import Vocabulary, registered_vocabulary

ORIGIN = (
    "https://raw.githubusercontent.com/bytedance/fc-clip/"
    "2b0bbe213070d44da9182530fa2e826fef03f974/fcclip/data/datasets"
)
DOWNLOAD_COMMAND = "maskclippp download vocabularies"

_TABLE = Path(__file__).resolve().parent / "openseg.tsv"


@dataclass(frozen=True)
class OpenSegList:
    """A list and the datasets whose classes it names.

    Attributes:
        file: name of the published file.
        sha256: of the published file.
        datasets: names under which the datasets are registered.
        by_category_id: its ids are category ids of the datasets; otherwise it has the datasets'
            classes in their order.
        omitted: ids that the datasets do not use.
    """

    file: str
    sha256: str
    datasets: frozenset[str]
    by_category_id: bool = False
    omitted: frozenset[int] = frozenset()


@functools.cache
def openseg_lists() -> tuple[OpenSegList, ...]:
    """The published lists."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader((line for line in lines if line[0] != "#"), delimiter="\t")
    return tuple(
        OpenSegList(
            row["file"],
            row["sha256"],
            frozenset(
                f"openvocab_{name.format(split)}"
                for name in row["datasets"].split(",")
                for split in ("train", "val")
            ),
            row["numbering"] == "ids",
            frozenset(map(int, row["omitted"].split())),
        )
        for row in rows
    )


def openseg_folder() -> Path:
    """Where the lists are kept in the user's cache."""
    return cache_folder() / "vocabularies"


def remote_files(origin: str = ORIGIN) -> list[RemoteFile]:
    """The lists as files to download into the cache."""
    hashes = {entry.file: entry.sha256 for entry in openseg_lists()}
    folder = openseg_folder()
    return [RemoteFile(f"{origin}/{file}", folder / file, sha) for file, sha in hashes.items()]


def downloaded() -> tuple[int, int]:
    """Number of lists in the cache, and number of lists."""
    paths = [file.path for file in remote_files()]
    return sum(path.is_file() for path in paths), len(paths)


def find_list(dataset_name: str) -> OpenSegList | None:
    """The list for a registered dataset; None if OpenSeg has none."""
    return next((entry for entry in openseg_lists() if dataset_name in entry.datasets), None)


def is_published(path: Path) -> bool:
    """Whether the content of a file is one of the published lists, wherever it is."""
    return sha256_of_file(path) in {entry.sha256 for entry in openseg_lists()}


def read_openseg_vocabulary(entry: OpenSegList, dataset_name: str) -> Vocabulary:
    """OpenSeg's synonyms for the classes of a dataset, in its order.

    Raises:
        MissingFileError: the list was not downloaded; says how to.
        InputError: the file is not the published one, or it does not fit the dataset's classes.
    """
    path = openseg_folder() / entry.file
    if not path.is_file():
        raise MissingFileError(
            f"DATASETS.VOCABULARY openseg: the class list for dataset {dataset_name} is not on "
            f"this machine: run {DOWNLOAD_COMMAND}, or put {ORIGIN}/{entry.file} at {path}"
        )
    found = sha256_of_file(path)
    if found != entry.sha256:
        raise InputError(
            f"{path} is not the published list: its SHA-256 is {found}, expected {entry.sha256}. "
            f"Remove it and run {DOWNLOAD_COMMAND}; to use a class list of your own, set "
            "DATASETS.VOCABULARY to its path"
        )
    listed = read_vocabulary(path)
    registered = registered_vocabulary(dataset_name)
    ids = [category for category in listed.ids if category not in entry.omitted]
    if entry.by_category_id:
        ids = list(registered.ids)
        unknown = [category for category in ids if category not in listed.positions]
        if unknown:
            raise InputError(
                f"{path} has no classes for the categories {unknown[:10]} of dataset {dataset_name}"
            )
    source = f"openseg/{entry.file}"
    if len(ids) != len(registered):
        raise InputError(
            f"{source} has {len(ids)} classes, dataset {dataset_name} {len(registered)}: the "
            "dataset was registered with other classes; set DATASETS.VOCABULARY builtin"
        )
    return Vocabulary(listed.by_ids(ids).classes, source, registered.ids)
