"""Reads vocabularies from text: the shipped class lists, OpenSeg's lists, and users' files.

Each line holds a class, in one of three forms; all lines of a file have the same form:

- ``synonym, synonym, ...``
- ``id: synonym, synonym, ...``, with ascending category ids;
- ``id<TAB>kind<TAB>color<TAB>words``, below a line with these four titles. The kind is thing or
  stuff, the color is red,green,blue, and the words are synonyms.

Empty lines and lines that begin with ``#`` are skipped, and so are classes that are called
``invalid_class_id``, by which OpenSeg's lists mark ids that their dataset does not use.

The shipped lists, one TSV file per dataset, have the datasets' own ids and order; their synonyms
are ours.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError
from maskclippp.words.spelling import shortened, split_synonyms
from maskclippp.words.vocabulary import Color, Vocabulary

_FOLDER = Path(__file__).resolve().parent / "class_lists"
_HEADER = ["id", "kind", "color", "words"]
_UNUSED_ID = "invalid_class_id"
_MAX_BYTES = 2**24
# What is often found in place of a word list, by how it begins.
_OTHER_FILES = {
    "version https://git-lfs": "a pointer of git-lfs (run git lfs pull)",
    "<!doctype html": "a saved web page",
    "<html": "a saved web page",
    "<?xml": "XML",
    "{\\rtf": "an RTF document",
    "{": "JSON",
    "[": "JSON",
    "%pdf": "a PDF document",
}
# re.ASCII: \d is 0-9 only, not the digits of other scripts.
_NUMBERED = re.compile(r"\s*(\d+)\s*:(.*)", re.ASCII)
# Lines of tables and enumerations: "0,person", "0 person", "1. person", "- person".
_ENUMERATED = re.compile(r"\s*(\d+\s*[\s,;.)|-]|[-*+]\s)\s*\S", re.ASCII)
_ROW = re.compile(r"(\d+)\t(thing|stuff)\t(\d+),(\d+),(\d+)\t([^\t]*)", re.ASCII)


class _Line(NamedTuple):
    place: str
    text: str
    id: int | None
    synonyms: tuple[str, ...]
    is_thing: bool = False
    color: Color = (0, 0, 0)


def load_class_list(name_or_path: str | Path) -> Vocabulary:
    """A shipped class list by its name, or a TSV file of the same form by its path.

    Raises:
        MissingFileError: there is no such list; names the shipped ones.
        InputError: see :func:`parse_vocabulary`.
    """
    path = _FOLDER / f"{name_or_path}.tsv"
    if path.is_file():
        return _shipped(path)
    path = Path(name_or_path)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.tsv")))
        raise MissingFileError(f"class list {name_or_path} not found; shipped lists: {shipped}")
    vocabulary = read_vocabulary(path)
    if not vocabulary.colors:
        raise InputError(f"{path}: expected the header {_HEADER}, separated by tabs")
    return vocabulary


@functools.cache
def _shipped(path: Path) -> Vocabulary:
    return read_vocabulary(path)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a file in UTF-8, with or without a byte order mark, with LF or CRLF line ends.

    Raises:
        MissingFileError: it does not exist.
        InputError: it is not UTF-8 text, or another kind of file; or see :func:`parse_vocabulary`.
    """
    if not path.is_file():
        raise MissingFileError(f"class file {path} does not exist (looked in {Path.cwd()})")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes; expected a word list, below {_MAX_BYTES:,}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read ({error.strerror})") from error
    for beginning, kind in _OTHER_FILES.items():
        if text.lstrip().lower().startswith(beginning):
            raise InputError(
                f"{path} is {kind}, not a word list; expected a class per line: name, synonym, ..."
            )
    # Not splitlines(), which also splits at rare Unicode characters within a line.
    return parse_vocabulary(text.split("\n"), str(path))


def parse_vocabulary(lines: Iterable[str], source: str) -> Vocabulary:
    """The vocabulary that ``lines`` hold.

    Raises:
        InputError: no class; an empty synonym; ids on some lines only, or not ascending; a
            malformed line, or a repeated id or synonym, below a header. Names ``source`` and line.
    """
    rows = [
        (line, f"{source}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    is_table = bool(rows) and rows[0][0].split("\t") == _HEADER
    parse = _parse_row if is_table else _parse_line
    parsed = [parse(line, place) for line, place in rows[is_table:]]
    found = [line for line in parsed if line.synonyms != (_UNUSED_ID,)]
    if not found:
        raise InputError(f"{source}: holds no class; expected one per line: name, synonym, ...")
    if is_table:
        _check_unique(found)
    else:
        _check_numbering(parsed)
        first, *others = [_ENUMERATED.match(line) for line, _ in rows]
        if others and all(others) and (first or _is_title(rows[0][0], others[0])):
            raise InputError(
                f"{source}: the lines begin with numbers or bullets, such as {parsed[1].text!r}; "
                "write ids as id: name, synonym, ..., or leave them out"
            )
    return Vocabulary(
        tuple(line.synonyms for line in found),
        source,
        tuple(line.id for line in found if line.id is not None),
        tuple(line.is_thing for line in found if is_table),
        tuple(line.color for line in found if is_table),
    )


def _is_title(line: str, row: re.Match[str] | None) -> bool:
    """Whether a line is the title of a table, by its separator."""
    return row is not None and row[1][-1] in ",;|\t" and row[1][-1] in line


def parse_class_row(text: str) -> Vocabulary:
    """The classes of one text: ``"sky, dog, tree"`` or ``"cat, kitten; table"``.

    Raises:
        InputError: see :meth:`Vocabulary.from_class_names` and :meth:`Vocabulary.require_unique`.
    """
    return Vocabulary.from_class_names(text, f"the words {shortened(text)!r}").require_unique()


def _parse_line(line: str, place: str) -> _Line:
    numbered = _NUMBERED.match(line)
    if numbered is None:
        return _Line(place, line.strip(), None, split_synonyms(line, place))
    return _Line(place, line.strip(), int(numbered[1]), split_synonyms(numbered[2], place))


def _parse_row(line: str, place: str) -> _Line:
    columns = line.split("\t")
    if len(columns) != len(_HEADER):
        raise InputError(f"{place}: expected {len(_HEADER)} tab-separated columns, found {columns}")
    row = _ROW.fullmatch(line)
    if row is None or max(map(int, row.group(3, 4, 5))) > 255:
        raise InputError(
            f"{place}: expected an integer id, thing|stuff, and a color like 220,20,60, found "
            f"{columns}"
        )
    red, green, blue = map(int, row.group(3, 4, 5))
    synonyms = split_synonyms(row[6], place)
    return _Line(place, line, int(row[1]), synonyms, row[2] == "thing", (red, green, blue))


def _check_numbering(lines: Sequence[_Line]) -> None:
    for previous, line in pairwise(lines):
        if (line.id is None) != (previous.id is None):
            raise InputError(
                f"{line.place}: {line.text!r} has {'no' if line.id is None else 'an'} id, unlike "
                "the lines before; number all classes (id: name, synonym) or none"
            )
        if line.id is not None and previous.id is not None and line.id <= previous.id:
            raise InputError(
                f"{line.place}: id {line.id} follows id {previous.id}; ids must ascend"
            )


def _check_unique(lines: Sequence[_Line]) -> None:
    place_of: dict[str, str] = {}
    for line in lines:
        for key in [f"id {line.id}", *(f"synonym {name!r}" for name in line.synonyms)]:
            if key in place_of:
                raise InputError(f"{line.place}: {key} already occurs in {place_of[key]}")
            place_of[key] = line.place
