"""The OpenSeg word lists, on which the published numbers rest (Ghiasi et al., ECCV 2022).

They are no part of this project: ``tools/download.py vocabularies`` fetches them from where they
are published into the user's cache. This table knows their hashes and which datasets they are for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.cache import cache_folder
from maskclippp.files.downloads import RemoteFile
from maskclippp.words.word_lists import WordList, read_word_list

ORIGIN = (
    "https://raw.githubusercontent.com/bytedance/fc-clip/"
    "2b0bbe213070d44da9182530fa2e826fef03f974/fcclip/data/datasets"
)
DOWNLOAD_COMMAND = "python tools/download.py vocabularies"

_SPLITS = ("train", "val")


@dataclass(frozen=True)
class OpenSegList:
    """A list and the datasets whose classes it names.

    Attributes:
        sha256: of the published file.
        datasets: registered names without prefix, ``{}`` standing for train and val.
        by_dataset_id: its ids are category ids of the datasets, of which some may use a part;
            otherwise it has their classes in their order.
        without: ids that the datasets leave out.
    """

    file: str
    sha256: str
    datasets: tuple[str, ...]
    by_dataset_id: bool = False
    without: tuple[int, ...] = ()

    @property
    def dataset_names(self) -> frozenset[str]:
        """Names under which the datasets are registered."""
        return frozenset(
            f"openvocab_{name.format(split)}" for name in self.datasets for split in _SPLITS
        )


_VOC_SHA256 = "9acddc0dc82ebb9167e23ac93b197c91794603ec320f5e30053f983d4fa23c21"
LISTS = (
    OpenSegList(
        "coco_panoptic_with_prompt_eng.txt",
        "560169ea22202460c3b9427df387f8d1778e94dadecd38554da683e2097cda9f",
        ("coco_2017_{}_panoptic_with_sem_seg", "coco_2017_{}"),
        by_dataset_id=True,
    ),
    OpenSegList(
        "coco_stuff_with_prompt_eng.txt",
        "af860dc8362af7c7fed556b79014cfbf775b7ece2279b11317a16260cdca9bcb",
        ("coco_2017_{}_stuff_sem_seg",),
    ),
    OpenSegList(
        "ade20k_150_with_prompt_eng.txt",
        "3204c154e2c524ce2575f873838893fc25d68c5c4f7973f2d4ee76d7e24bb781",
        ("ade20k_panoptic_{}", "ade20k_sem_seg_{}"),
    ),
    OpenSegList(
        "ade20k_847_with_prompt_eng.txt",
        "173d44806d8b3ca94cfb8947f459e6ecdb90770387b3a4116fdd78e8e111d732",
        ("ade20k_full_sem_seg_{}",),
    ),
    OpenSegList(
        "cityscapes_with_prompt_eng.txt",
        "e4afc7fb7776a05213822333a48ad708448a0fd25eb819b2ea7ef253af164b43",
        ("cityscapes_fine_panoptic_{}",),
    ),
    # Other copies of this list count from 0; the order is the same, and that is what is used.
    OpenSegList(
        "mapillary_vistas_with_prompt_eng.txt",
        "67d04273ba43538b4ae8c5c809951422982e3abd6eb2ee6ab2a2d063916e9c10",
        ("mapillary_vistas_panoptic_{}",),
    ),
    OpenSegList("pascal_voc_21_with_prompt_eng.txt", _VOC_SHA256, ("pascal21_sem_seg_{}",)),
    OpenSegList(
        "pascal_voc_21_with_prompt_eng.txt",
        _VOC_SHA256,
        ("pascal20_sem_seg_{}",),
        without=(0,),  # background
    ),
    OpenSegList(
        "pascal_ctx_59_with_prompt_eng.txt",
        "0bf48d67f93b15d331cbf36e112777cc3a407084e94e395b98fad8c67e50149a",
        ("pascal_ctx59_sem_seg_{}",),
    ),
    OpenSegList(
        "pascal_ctx_459_with_prompt_eng.txt",
        "574ae7e3dc9decff20366696309c36d40502cda90204f7e94c96251559be5197",
        ("pascal_ctx459_sem_seg_{}",),
    ),
    OpenSegList(
        "lvis_1203_with_prompt_eng.txt",
        "7108477b1bdfca7c95d17f7b9e992250be9a6bd6dc704fcb4592484ac626dffd",
        ("lvis_1203_instance_{}",),
    ),
)


def vocabularies_folder() -> Path:
    """Where the lists are kept in the user's cache."""
    return cache_folder() / "vocabularies"


def remote_files(origin: str = ORIGIN) -> list[RemoteFile]:
    """The lists as files to download into the cache."""
    hashes = {entry.file: entry.sha256 for entry in LISTS}
    folder = vocabularies_folder()
    return [RemoteFile(f"{origin}/{file}", folder / file, sha) for file, sha in hashes.items()]


def downloaded() -> tuple[int, int]:
    """How many of the lists are in the cache, and how many there are."""
    paths = [file.path for file in remote_files()]
    return sum(path.is_file() for path in paths), len(paths)


def find_list(dataset_name: str) -> OpenSegList | None:
    """The list for a registered dataset; None: OpenSeg has none."""
    return next((entry for entry in LISTS if dataset_name in entry.dataset_names), None)


def read_openseg_words(entry: OpenSegList, metadata: Any) -> WordList:
    """The words of ``entry`` for each class of a dataset, in its order.

    Raises:
        FileNotFoundError: the list was not downloaded; says how to.
        ValueError: the file is not the published one, or it does not fit the dataset's classes.
    """
    path = vocabularies_folder() / entry.file
    if not path.is_file():
        raise MissingFileError(
            f"DATASETS.VOCABULARY openseg: the words of dataset {metadata.name} are not on this "
            f"machine: run {DOWNLOAD_COMMAND}, or put {ORIGIN}/{entry.file} at {path}"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != entry.sha256:
        raise InputError(
            f"{path} is not the published list: its SHA-256 is {found}, expected {entry.sha256}. "
            f"Remove it and run {DOWNLOAD_COMMAND}; words of your own are chosen by "
            "DATASETS.VOCABULARY <their path>"
        )
    words = read_word_list(path)
    assert words.ids is not None  # the published files are numbered
    names = dict(zip(words.ids, words.names, strict=True))
    for identity in entry.without:
        del names[identity]
    source = f"openseg/{entry.file}"
    if not entry.by_dataset_id:
        return WordList(source, tuple(names.values()))
    return WordList(source, _names_by_id(names, metadata, path))


def _names_by_id(names: Mapping[int, str], metadata: Any, path: Path) -> tuple[str, ...]:
    positions = class_positions(metadata)
    ids: Sequence[int] = sorted(positions, key=lambda identity: positions[identity])
    unknown = [identity for identity in ids if identity not in names]
    if unknown:
        raise InputError(
            f"{path} has no words for the categories {unknown[:10]} of dataset {metadata.name}"
        )
    return tuple(names[identity] for identity in ids)


def class_positions(metadata: Any) -> Mapping[int, int]:
    """The contiguous id of every class of a dataset by category id; empty if it does not say."""
    kind = "stuff" if metadata.get("stuff_classes", None) else "thing"
    positions: Mapping[int, int] = metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
    return positions
