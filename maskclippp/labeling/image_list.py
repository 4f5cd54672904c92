"""The images of a job: found once, kept in a file, and read from there shard by shard."""

import glob
import itertools
import json
import os
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError
from maskclippp.files.atomic import atomic_write
from maskclippp.files.images import decode_image, read_image
from maskclippp.files.signatures import first_bytes
from maskclippp.predictor.images import IMAGE_ENDINGS

_TAR = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SHADOWS = "__MACOSX"


class Entry(NamedTuple):
    """An image: a file, or ``size`` bytes of a tar file, from ``offset``.

    ``file`` is relative to the root of the images, ``member`` is the name in the tar file.
    """

    file: str
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """The image in rows."""
        name = f"{self.file}/{self.member}" if self.member else self.file
        # The names of files need not be text.
        return name.encode(errors="surrogateescape").decode(errors="replace")

    def read(self, root: Path) -> Image.Image | InputError:
        """The image, RGB; or why it cannot be read."""
        path = root / Path(self.file).expanduser()
        try:
            if not self.member:
                return read_image(path, reduce_depth=True)
            with path.open("rb") as file:
                file.seek(self.offset)
                return decode_image(file.read(self.size), self.name, reduce_depth=True)
        except InputError as error:
            return error
        except (OSError, ValueError) as error:  # no path has a null character
            return UnreadableFileError(f"{path} cannot be read: {error}")


class ImageList:
    """The images of a job, in shards; in memory are only the places of shards in its file.

    Args:
        path: written by :func:`write_image_list`.
        shard_size: images per shard.
    """

    def __init__(self, path: Path, shard_size: int) -> None:
        if not path.is_file():
            raise MissingFileError(
                f"{path} does not exist, without which the labels beside it cannot be continued: "
                "choose another --output"
            )
        self._path, self._shard_size = path, shard_size
        self._starts = array("Q")
        self.count = position = 0
        with path.open("rb") as file:
            for line in file:
                if self.count % shard_size == 0:
                    self._starts.append(position)
                position += len(line)
                self.count += 1

    @property
    def shards(self) -> int:
        """Their number."""
        return len(self._starts)

    def shard(self, index: int) -> list[Entry]:
        """The images of a shard."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            lines = itertools.islice(file, self._shard_size)
            return [Entry(*json.loads(line)) for line in lines]


def write_image_list(path: Path, entries: Iterable[Entry]) -> None:
    """Write one line per image, atomically."""
    with atomic_write(path) as file:
        for entry in entries:
            file.write(json.dumps(entry if entry.member else entry[:1]).encode() + b"\n")


def check_source(source: str) -> None:
    """Raise a MissingFileError if there is no such file or folder, and nothing of that pattern."""
    path = Path(source).expanduser()
    if not path.exists() and next(_matches(path), None) is None:
        raise MissingFileError(
            f"{source} does not exist (looked in {Path.cwd()}); expected a folder, a pattern such "
            f"as 'photos/*.jpg', a text file with one path per line, or {_TAR} files"
        )


def image_root(source: str) -> Path:
    """What the names of the images of a source are relative to."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    return path.parent if _is_list(path) else Path()


def find_images(source: str, without: Path) -> Iterator[Entry]:
    """The images of a source, in a fixed order, without hidden ones.

    Args:
        source: a folder (with its subfolders), a pattern, a text file with one path per line,
            relative to its folder, or a tar file. Tar files in any of these count as their images.
        without: a folder that is passed over: of results.

    Raises:
        InputError: a file of another kind, a compressed or damaged tar file.
    """
    root = image_root(source)
    for name in _files(source, without):
        if name.lower().endswith(_COMPRESSED):
            raise InputError(
                f"{root / name} is compressed: its images can be read only from a .tar"
            )
        if name.lower().endswith(_TAR):
            yield from _members(name, root)
        else:
            yield Entry(name)


def _files(source: str, without: Path) -> Iterable[str]:
    """Images and tar files, relative to the root."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _files_in(path, without)
    if _is_list(path):
        return _listed(path)
    matches = [str(path)] if path.is_file() else sorted(_matches(path))
    return [match for match in matches if _is_wanted(match) and Path(match).is_file()]


def _matches(pattern: Path) -> Iterator[str]:
    return glob.iglob(str(pattern), recursive=True)  # noqa: PTH207  also absolute


def _files_in(folder: Path, without: Path) -> Iterator[str]:
    # Results in the folder itself are not there yet.
    visited = {_identity(path) for path in (without,) if path.exists()} - {_identity(folder)}
    # os.walk, because Path.rglob does not follow linked folders before Python 3.13.
    for parent, folders, names in os.walk(folder, followlinks=True):
        identity = _identity(Path(parent))
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != _SHADOWS)
        prefix = os.path.relpath(parent, folder)
        for name in sorted(filter(_is_wanted, names)):
            yield os.path.normpath(os.path.join(prefix, name))  # noqa: PTH118  many files


def _identity(folder: Path) -> tuple[int, int]:
    """The same by whichever link a folder is reached."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_wanted(path: str) -> bool:
    endings = (*IMAGE_ENDINGS, _TAR, *_COMPRESSED)
    return path.lower().endswith(endings) and not Path(path).name.startswith(".")


def _is_list(path: Path) -> bool:
    return path.is_file() and not _is_wanted(path.name)


def _listed(path: Path) -> Iterator[str]:
    """The lines of a text file, each once."""
    if b"\0" in first_bytes(path):
        raise InputError(
            f"{path} is neither an image {IMAGE_ENDINGS}, nor a {_TAR} file, nor a text file with "
            "one path per line"
        )
    lines = set()
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in map(str.strip, file):
            if line and line not in lines:
                lines.add(line)
                yield line


def _members(name: str, root: Path) -> Iterator[Entry]:
    """The images in a tar file."""
    path = root / Path(name).expanduser()
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                if member.isreg() and not member.issparse() and _is_image(member.name):
                    yield Entry(name, member.name, member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (tarfile.TarError, OSError) as error:
        raise UnreadableFileError(f"{path} cannot be read as a tar file: {error}") from error


def _is_image(member: str) -> bool:
    name = member.rpartition("/")[2]
    hidden = name.startswith(".") or _SHADOWS in member.split("/")
    return name.lower().endswith(IMAGE_ENDINGS) and not hidden
