"""Weights in several files: the index that Hugging Face's libraries write beside them."""

from pathlib import Path
from typing import TypedDict

from maskclippp.errors import InputError
from maskclippp.files.json_files import read_json

# What a folder of weights may contain, in the order in which the names are tried.
_NAMES = (
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    *("model.safetensors", "pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
_INDEX = ".index.json"


class _Index(TypedDict):
    weight_map: dict[str, str]


def weights_in(folder: Path) -> Path | None:
    """The file or index of the weights in a folder of the Hugging Face layout, if any."""
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def index_of(path: Path) -> Path | None:
    """The index that a path names; None if it names something else."""
    return path if path.name.endswith(_INDEX) and path.is_file() else None


def read_index(path: Path) -> dict[Path, set[str]]:
    """The files of an index, with the keys of each.

    Raises:
        InputError: it is no index, or names files outside its folder.
    """
    places = read_json(path, _Index, "the index of sharded weights")["weight_map"]
    shards: dict[Path, set[str]] = {}
    for key, name in places.items():
        if name != Path(name).name or name.endswith(_INDEX):
            raise InputError(
                f"index of sharded weights {path}: expected the name of a file in the same folder "
                f"for {key!r}, found {name!r}"
            )
        shards.setdefault(path.parent / name, set()).add(key)
    return shards
