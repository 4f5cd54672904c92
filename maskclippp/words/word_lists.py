"""Class names in text: a file with one class per line, or words in a row.

A line is ``synonym, synonym, ...``, or ``id: synonym, synonym, ...``; either all lines have an id
or none. Empty lines and lines that begin with ``#`` are no classes, and neither are lines whose
name is ``invalid_class_id``, by which the OpenSeg lists mark ids that their dataset does not use.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskclippp.errors import InputError, MissingFileError

INVALID_NAME = "invalid_class_id"

_NUMBERED = re.compile(r"\s*(\d+)\s*:(.*)", re.ASCII)


@dataclass(frozen=True)
class WordList:
    """Classes in order.

    Attributes:
        source: where they come from, for messages and results.
        names: per class its synonyms, joined by commas.
        ids: per class its number in annotations, ascending; None: they are counted from 0.
    """

    source: str
    names: tuple[str, ...]
    ids: tuple[int, ...] | None = None

    def require_unique(self) -> "WordList":
        """This list; a ValueError names every word that stands twice, and where."""
        classes_of: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            for word in name.split(","):
                classes_of.setdefault(word.strip(), []).append(index)
        repeated = [
            f"{word!r} (classes {', '.join(map(str, classes))})"
            for word, classes in classes_of.items()
            if len(classes) > 1
        ]
        if repeated:
            raise InputError(
                f"{self.source}: {len(repeated)} words stand more than once, so that nothing can "
                f"tell their classes apart: {', '.join(repeated[:10])}; keep each in one class"
            )
        return self


def read_word_list(path: Path) -> WordList:
    """Read a text file of classes, UTF-8 with or without a byte order mark.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: no text, no class, a class without a name, ids on some lines only, or ids that
            do not ascend; names file and line.
    """
    if not path.is_file():
        raise MissingFileError(f"word list {path} does not exist (looked in {Path.cwd()})")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"word list {path} is no UTF-8 text: {error}; save it as UTF-8") from error
    # Not splitlines(), which takes rare Unicode characters within a word for line ends.
    return parse_word_list(text.split("\n"), str(path))


def parse_word_list(lines: Iterable[str], source: str) -> WordList:
    """The classes on ``lines``; raises the ValueErrors of :func:`read_word_list`."""
    names: list[str] = []
    ids: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{source}, line {number}"
        numbered = _NUMBERED.match(line)
        name = numbered[2] if numbered else line
        if numbered:
            _check_ascending(ids, int(numbered[1]), place)
        if name.strip() == INVALID_NAME:
            continue
        if (numbered is None) != (not ids) and names:
            raise InputError(
                f"{place}: {line.strip()!r} has {'an' if numbered else 'no'} id, unlike the lines "
                "before; number all classes (id: name, synonym) or none"
            )
        if numbered:
            ids.append(int(numbered[1]))
        names.append(_checked_name(name, place))
    if not names:
        raise InputError(f"{source}: holds no class; expected one per line: name, synonym, ...")
    return WordList(source, tuple(names), tuple(ids) if ids else None)


def words_in_a_row(text: str) -> WordList:
    """The classes of a text such as ``"sky, dog, tree"``: one word each.

    Raises:
        ValueError: an empty word, or one that stands twice.
    """
    names = text.removesuffix(",").split(",")
    return parse_names(names, f"the words {_shortened(text)!r}")


def parse_names(names: Sequence[str], source: str) -> WordList:
    """Classes that are given one by one, synonyms joined by commas.

    Raises:
        ValueError: no class, an empty word, or one that stands twice.
    """
    if not names:
        raise InputError(f"{source}: no class is given")
    checked = [_checked_name(name, f"{source}, class {i}") for i, name in enumerate(names)]
    return WordList(source, tuple(checked)).require_unique()


def _check_ascending(ids: Sequence[int], identity: int, place: str) -> None:
    if ids and identity <= ids[-1]:
        raise InputError(
            f"{place}: id {identity} follows id {ids[-1]}; ids must ascend, each standing once"
        )


def _checked_name(name: str, place: str) -> str:
    synonyms = [word.strip() for word in name.split(",")]
    if not all(synonyms):
        raise InputError(
            f"{place}: {name.strip()!r} has an empty word; expected synonyms separated by single "
            "commas"
        )
    return ", ".join(synonyms)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
