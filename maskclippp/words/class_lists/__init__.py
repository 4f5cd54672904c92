"""Class lists of the registered datasets: one TSV file each, a class per line, in dataset order.

Columns: ``id`` (the dataset's own category id), ``kind`` (thing or stuff), ``color`` (red, green,
blue) and ``words`` (synonyms joined by commas, the plainest first). The position of a class among
the lines is its contiguous id. Names, ids and order are the datasets' own; the synonyms are ours.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from maskclippp.errors import InputError, MissingFileError

_FOLDER = Path(__file__).resolve().parent
_HEADER = ["id", "kind", "color", "words"]


@dataclass(frozen=True)
class ClassEntry:
    """One class of a dataset; ``words`` is the comma-joined synonym string used in metadata."""

    category_id: int
    is_thing: bool
    color: tuple[int, int, int]
    words: str

    @property
    def synonyms(self) -> list[str]:
        """The synonyms as a list, blanks stripped."""
        return [word.strip() for word in self.words.split(",")]


def class_list(classes: str | tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
    """The classes themselves, or those of a list by name or path, which is read only once."""
    return classes if isinstance(classes, tuple) else _load_once(classes)


def load_class_list(name_or_path: str | Path) -> tuple[ClassEntry, ...]:
    """Read a class list: the name of one that ships with the package, or a path to a TSV file.

    The file is UTF-8, with or without a byte order mark, its lines end in LF or CRLF. Raises
    FileNotFoundError (listing the shipped names) and ValueError naming file and line for a
    malformed line or for a category id or word that occurs twice.
    """
    path = _FOLDER / f"{name_or_path}.tsv"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.tsv")))
        raise MissingFileError(f"no class list {name_or_path}; shipped lists: {shipped}")
    entries: list[ClassEntry] = []
    header_seen = False
    first_line_of: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.split("\t")
        if not header_seen:
            if columns != _HEADER:
                raise InputError(f"{path}:{number}: expected the header {_HEADER}, found {columns}")
            header_seen = True
            continue
        entry = _parse_class(columns, f"{path}:{number}")
        for key in [f"id {entry.category_id}", *(f"word '{word}'" for word in entry.synonyms)]:
            if key in first_line_of:
                raise InputError(
                    f"{path}:{number}: {key} stands already in line {first_line_of[key]}"
                )
            first_line_of[key] = number
        entries.append(entry)
    if not entries:
        raise InputError(f"{path}: holds no class")
    return tuple(entries)


_load_once = functools.cache(load_class_list)


def _read_lines(path: Path) -> list[str]:
    try:
        # Not splitlines(), which takes rare Unicode characters within a word for line ends.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text: {error}; save it as UTF-8") from error


def _is_number(text: str) -> bool:
    """Whether int() takes the text for what it looks like: digits 0-9 alone."""
    return text.isascii() and text.isdigit()


def _parse_class(columns: list[str], place: str) -> ClassEntry:
    if len(columns) != len(_HEADER):
        raise InputError(f"{place}: expected {len(_HEADER)} tab-separated columns, found {columns}")
    category_id, kind, color, words = columns
    channels = color.split(",")
    if (
        not _is_number(category_id)
        or kind not in ("thing", "stuff")
        or len(channels) != 3
        or not all(_is_number(channel) and int(channel) <= 255 for channel in channels)
        or not all(word.strip() for word in words.split(","))
    ):
        raise InputError(
            f"{place}: expected an integer id, thing|stuff, a color like 220,20,60 and words "
            f"joined by commas, found {columns}"
        )
    red, green, blue = (int(channel) for channel in channels)
    return ClassEntry(int(category_id), kind == "thing", (red, green, blue), words)
