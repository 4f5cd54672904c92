"""A JSON file is what its type says, or one sentence names file, entry, expected and found."""

import re
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta
from typing_extensions import NotRequired, TypedDict

from maskclippp.errors import InputError
from maskclippp.files.json_files import read_json


class Part(TypedDict):
    id: Annotated[int, Meta(ge=1)]
    name: NotRequired[str]
    points: NotRequired[list[float]]


class Whole(TypedDict):
    parts: list[Part]


GOOD = '{"parts": [{"id": 1, "name": "a", "points": [1, 2.5], "more": [[]]}], "others": null}'


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_declared_keys_are_read_with_or_without_a_byte_order_mark(
    start: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(start + GOOD, encoding="utf-8")
    content = read_json(tmp_path / "a.json", Whole, "a test")
    assert content == {"parts": [{"id": 1, "name": "a", "points": [1, 2.5]}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read: it is not valid JSON (Input data was truncated)"),
        ("", "it is empty"),
        (b"\xff\xfe{\0}\0", "cannot be read: it is not valid JSON"),
        ('{"parts": [\n{"id": NaN}]}', "line 2: invalid character at"),
        ('{"parts": [{"name": "\xff', "it is not valid JSON"),
        ('{"parts": [], "x": ' + "[" * 100_000, "it is nested too deeply"),
        ("<html>", "line 1: invalid character at '<html>'"),
        ("[]", "the file must be an object, found []"),
        ("null", "the file must be an object, found null"),
        ('{"other": []}', "the file lacks parts, found only the keys ['other']"),
        ('{"parts": {}}', "parts must be a list, found {}"),
        ('{"parts": [{"id": 1}, 7]}', "parts[1] must be an object, found 7"),
        ('{"parts": [{"x": 1}]}', "parts[0] lacks id, found only the keys ['x']"),
        ('{"parts": [{"id": "1"}]}', 'parts[0].id must be a whole number, found "1"'),
        ('{"parts": [{"id": 1.0}]}', "parts[0].id must be a whole number, found 1.0"),
        ('{"parts": [{"id": true}]}', "parts[0].id must be a whole number, found true"),
        ('{"parts": [{"id": 0}]}', "parts[0].id must be a whole number >= 1, found 0"),
        ('{"parts": [{"id": 1, "name": null}]}', "parts[0].name must be a text, found null"),
        ('{"parts": [{"id": 1, "points": [[1]]}]}', "parts[0].points[0] must be a number, found"),
    ],
)
def test_broken_files_say_where_and_what(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    data = content if isinstance(content, bytes) else content.encode("latin-1")
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.json.*{re.escape(message)}.*; it is needed as a te"):
        read_json(tmp_path / "a.json", Whole, "a test")


def test_missing_json_says_what_it_is_needed_as(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.json does not exist; it is needed as a test"):
        read_json(tmp_path / "a.json", Whole, "a test")
