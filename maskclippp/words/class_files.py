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
from pathlib import Path
from typing import NamedTuple

from maskclippp.errors import InputError, MissingFileError
from maskclippp.words.vocabulary import Color, Vocabulary, split_synonyms

_FOLDER = Path(__file__).resolve().parent / "class_lists"
_HEADER = ["id", "kind", "color", "words"]
_UNUSED_ID = "invalid_class_id"
_NUMBERED = re.compile(r"\s*(\d+)\s*:(.*)", re.ASCII)


class _Line(NamedTuple):
    place: str
    text: str
    id: int | None
    synonyms: tuple[str, ...]
    is_thing: bool = False
    color: Color = (0, 0, 0)


@functools.cache
def load_class_list(name_or_path: str | Path) -> Vocabulary:
    """A shipped class list by its name, or a TSV file of the same form by its path.

    Raises:
        MissingFileError: there is no such list; names the shipped ones.
        InputError: see :func:`parse_vocabulary`.
    """
    path = _FOLDER / f"{name_or_path}.tsv"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.tsv")))
        raise MissingFileError(f"class list {name_or_path} not found; shipped lists: {shipped}")
    vocabulary = read_vocabulary(path)
    if not vocabulary.colors:
        raise InputError(f"{path}: expected the header {_HEADER}, separated by tabs")
    return vocabulary


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a file in UTF-8, with or without a byte order mark, with LF or CRLF line ends.

    Raises:
        MissingFileError: it does not exist.
        InputError: it is not UTF-8 text; or see :func:`parse_vocabulary`.
    """
    if not path.is_file():
        raise MissingFileError(f"class file {path} does not exist (looked in {Path.cwd()})")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    # Not splitlines(), which also splits at rare Unicode characters within a line.
    return parse_vocabulary(text.split("\n"), str(path))


def parse_vocabulary(lines: Iterable[str], source: str) -> Vocabulary:
    """The vocabulary that ``lines`` hold.

    Raises:
        InputError: no class; an empty synonym; ids on some lines only, or not ascending; a
            malformed line, or a repeated id or synonym, below a header. Names ``source`` and line.
    """
    found: list[_Line] = []
    is_table = False
    last_id = -1
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{source}, line {number}"
        if not found and line.split("\t") == _HEADER:
            is_table = True
            continue
        parsed = _parse_row(line, place) if is_table else _parse_line(line, place)
        if parsed.id is not None and not is_table:
            if parsed.id <= last_id:
                raise InputError(f"{place}: id {parsed.id} follows id {last_id}; ids must ascend")
            last_id = parsed.id
        if parsed.synonyms != (_UNUSED_ID,):
            found.append(parsed)
    if not found:
        raise InputError(f"{source}: holds no class; expected one per line: name, synonym, ...")
    _check_numbering(found)
    if is_table:
        _check_unique(found)
    return Vocabulary(
        tuple(line.synonyms for line in found),
        source,
        tuple(line.id for line in found if line.id is not None),
        tuple(line.is_thing for line in found if is_table),
        tuple(line.color for line in found if is_table),
    )


def parse_class_row(text: str) -> Vocabulary:
    """The classes of a text such as ``"sky, dog, tree"``, each without synonyms.

    Raises:
        InputError: an empty or repeated name.
    """
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    names = text.removesuffix(",").split(",")
    return Vocabulary.from_class_names(names, f"the words {shown!r}").require_unique()


def _parse_line(line: str, place: str) -> _Line:
    numbered = _NUMBERED.match(line)
    if numbered is None:
        return _Line(place, line.strip(), None, split_synonyms(line, place))
    return _Line(place, line.strip(), int(numbered[1]), split_synonyms(numbered[2], place))


def _parse_row(line: str, place: str) -> _Line:
    columns = line.split("\t")
    if len(columns) != len(_HEADER):
        raise InputError(f"{place}: expected {len(_HEADER)} tab-separated columns, found {columns}")
    category, kind, color, words = columns
    channels = [int(channel) for channel in color.split(",") if _is_number(channel)]
    if (
        not _is_number(category)
        or kind not in ("thing", "stuff")
        or len(channels) != 3
        or color.count(",") != 2
        or max(channels) > 255
    ):
        raise InputError(
            f"{place}: expected an integer id, thing|stuff, and a color like 220,20,60, found "
            f"{columns}"
        )
    red, green, blue = channels
    synonyms = split_synonyms(words, place)
    return _Line(place, line, int(category), synonyms, kind == "thing", (red, green, blue))


def _is_number(text: str) -> bool:
    """Whether the text consists of digits 0-9; int() accepts other scripts as well."""
    return text.isascii() and text.isdigit()


def _check_numbering(lines: Sequence[_Line]) -> None:
    for line in lines:
        if (line.id is None) != (lines[0].id is None):
            raise InputError(
                f"{line.place}: {line.text!r} has {'no' if line.id is None else 'an'} id, unlike "
                "the lines before; number all classes (id: name, synonym) or none"
            )


def _check_unique(lines: Sequence[_Line]) -> None:
    place_of: dict[str, str] = {}
    for line in lines:
        for key in [f"id {line.id}", *(f"synonym {name!r}" for name in line.synonyms)]:
            if key in place_of:
                raise InputError(f"{line.place}: {key} already occurs in {place_of[key]}")
            place_of[key] = line.place
