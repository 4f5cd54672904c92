"""JSON files from others, checked against a declared type while they are decoded."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from typing_extensions import get_type_hints, is_typeddict

from maskclippp.errors import InputError, MissingFileError, UnreadableFileError

T = TypeVar("T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN = 60
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def read_json(path: str | Path, kind: type[T], what: str) -> T:
    """Read a JSON file of a type that msgspec knows, such as a TypedDict of lists of TypedDicts.

    Types are strict: a text, a boolean or a fraction is no whole number. Keys that the type does
    not declare are skipped. A byte order mark is allowed.

    Args:
        what: purpose of the file, for messages.

    Raises:
        MissingFileError: the file does not exist.
        UnreadableFileError: it cannot be read, is not JSON, or is nested too deeply.
        InputError: it is of another type; names entry and key, what was expected and found.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise MissingFileError(f"{path} {problem}; it is needed as {what}")
    try:
        content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}: {_mismatch(str(error), content, kind)}; it is needed as {what}"
        ) from error
    except RecursionError as error:
        raise UnreadableFileError(
            f"{path} cannot be read: it is nested too deeply; it is needed as {what}"
        ) from error
    except ValueError as error:  # malformed, or not UTF-8
        raise UnreadableFileError(
            f"{path} cannot be read: it is not valid JSON ({_malformed(str(error), content)}); "
            f"it is needed as {what}"
        ) from error


def _malformed(reason: str, content: bytes) -> str:
    """Why a text is not JSON, with the place and what stands there."""
    place = re.search(r" \(byte (\d+)\)", reason)
    if not content.strip():
        return "it is empty"
    if place is None:
        return reason.removeprefix("JSON is malformed: ")
    start = int(place[1])
    line = content.count(b"\n", 0, start) + 1
    before, after = content[max(0, start - 30) : start], content[start : start + 20]
    shown = " ".join((before + after).decode(errors="replace").split())
    return (
        f"line {line}: {reason[: place.start()].removeprefix('JSON is malformed: ')} at {shown!r}"
    )


def _mismatch(reason: str, content: bytes, kind: Any) -> str:
    """The place, what was expected, and what was found, of a message of msgspec.

    Such a message is "Expected `int`, got `str` - at `$.annotations[3].id`".
    """
    reason, _, path = reason.partition(" - at `$")
    found = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", path)
    steps = [int(index) if index else key for key, index in found]
    place, value = _place(steps), _value(content, steps)
    if reason.startswith("Object missing required field"):
        known = value if isinstance(value, dict) else {}
        missing = [key for key in _required_keys(kind, steps) if key not in known]
        return f"{place} lacks {', '.join(missing)}, found only the keys {sorted(known)}"
    expected = re.match(r"Expected `([^`]+)`(?: ([^,]+))?", reason)
    if expected is None:
        return f"{place} is wrong ({reason}), found {_in_short(value)}"
    names = " or ".join(_KINDS.get(name, name) for name in expected[1].split(" | "))
    limit = f" {expected[2]}" if expected[2] else ""
    return f"{place} must be {names}{limit}, found {_in_short(value)}"


def _value(content: bytes, steps: Sequence[int | str]) -> Any:
    """The value at the end of the steps; ``...`` if what surrounds it is malformed."""
    try:
        value = msgspec.json.decode(content)
        for step in steps:
            value = value[step]
    except (ValueError, RecursionError):
        return ...
    return value


def _place(steps: Sequence[int | str]) -> str:
    """``annotations[3].id``."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps]
    return "".join(parts).removeprefix(".") or "the file"


def _required_keys(kind: Any, steps: Sequence[int | str]) -> list[str]:
    """The required keys of the TypedDict at the end of the steps, in the order of declaration."""

    def option(kind: Any, wanted: Callable[[Any], bool]) -> Any:
        """The type itself, or the member of a union."""
        return next(k for k in (kind, *get_args(kind)) if wanted(k))

    for step in steps:
        if isinstance(step, int):
            (kind,) = get_args(option(kind, lambda k: get_origin(k) is list))
        else:
            kind = get_type_hints(option(kind, is_typeddict))[step]
    entry = option(kind, is_typeddict)
    return [key for key in get_type_hints(entry) if key in entry.__required_keys__]


def _in_short(value: Any) -> str:
    text = "something else" if value is ... else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
