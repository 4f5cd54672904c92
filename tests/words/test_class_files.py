"""Vocabularies in text files, in class lists, and in a row."""

from pathlib import Path

import pytest

from maskclippp.words import class_files
from maskclippp.words.class_files import (
    load_class_list,
    parse_class_row,
    parse_vocabulary,
    read_vocabulary,
)
from maskclippp.words.sources import read_words

HEADER = "id\tkind\tcolor\twords\n"
SHIPPED = sorted(file.stem for file in class_files._FOLDER.glob("*.tsv"))


def test_a_line_is_a_class_with_its_synonyms() -> None:
    words = parse_vocabulary(["# mine", "sky", "", " dog ,puppy", "tree"], "mine")
    assert words.classes == (("sky",), ("dog", "puppy"), ("tree",))
    assert words.names == ("sky", "dog, puppy", "tree")
    assert words.ids == ()


def test_ids_are_read_and_unused_ones_left_out() -> None:
    lines = ["0:invalid_class_id", "1:person,child", "12:invalid_class_id", "13: stop sign"]
    words = parse_vocabulary(lines, "list")
    assert words.classes == (("person", "child"), ("stop sign",))
    assert words.ids == (1, 13)


def test_a_colon_within_a_name_is_part_of_it() -> None:
    assert parse_vocabulary(["star: red"], "list").names == ("star: red",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dog", "cat,,kitten"], r"list, line 2: 'cat,,kitten' has an empty synonym"),
        (["1:dog", "cat"], r"line 2: 'cat' has no id"),
        (["dog", "1:cat"], r"line 2: '1:cat' has an id"),
        (["2:dog", "1:cat"], r"line 2: id 1 follows id 2"),
        (["2:dog", "2:cat"], r"line 2: id 2 follows id 2"),
        (["3:"], r"line 1: expected a word such as 'cat', found a blank"),
        (["0:invalid_class_id"], "holds no class"),
        ([], "holds no class"),
    ],
)
def test_wrong_lines_are_named(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_vocabulary(lines, "list")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_list_is_well_formed(name: str) -> None:
    assert load_class_list(name)  # reading refuses duplicate ids and words


def test_coco_panoptic_has_its_things_before_its_stuff() -> None:
    classes = load_class_list("coco_panoptic")
    assert list(classes.is_thing) == [True] * 80 + [False] * 53
    assert list(classes.ids) == sorted(classes.ids)
    assert (classes.ids[0], classes.ids[-1]) == (1, 200)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1\tthing\t1,2,3\tcat\n1\tstuff\t1,2,3\tsky\n", r"line 3: id 1 already .*line 2"),
        ("1\tthing\t1,2,3\tcat\n2\tstuff\t1,2,3\tsky, cat\n", r"line 3: synonym 'cat' already"),
        ("1\tthing\t1,2,3\n", r"line 2: expected 4 tab-separated columns"),
        ("1\tanimal\t1,2,3\tcat\n", r"line 2: expected an integer id"),
        ("1\tthing\t1,2,300\tcat\n", r"line 2: expected an integer id"),
        ("1\tthing\t256,2,3\tcat\n", r"line 2: expected an integer id"),
        ("1\tthing\t1,2,3,x\tcat\n", r"line 2: expected an integer id"),
        ("1\tthing\t1,2,3\tcat,,dog\n", r"line 2: 'cat,,dog' has an empty synonym"),
        ("\u00b2\tthing\t1,2,3\tcat\n", r"line 2: expected an integer id"),
        ("\u0663\tthing\t1,2,3\tcat\n", r"line 2: expected an integer id"),
        ("1\tthing\t1,2,\u00b2\tcat\n", r"line 2: expected an integer id"),
        ("", "holds no class"),
    ],
)
def test_malformed_list_names_file_and_line(lines: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "list.tsv"
    file.write_text(HEADER + lines, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_class_list(file)
    assert str(file) in str(error.value)


def test_a_class_list_needs_its_header(tmp_path: Path) -> None:
    file = tmp_path / "list.tsv"
    file.write_text("cat\ndog\n")
    with pytest.raises(ValueError, match="expected the header"):
        load_class_list(file)


def test_unknown_list_names_the_shipped_ones() -> None:
    with pytest.raises(FileNotFoundError, match="coco_panoptic"):
        load_class_list("nonsense")


LINES = HEADER + "1\tthing\t1,2,3\tcat, kitten\n2\tstuff\t4,5,6\tcr\u00e8me\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_do_not_matter(
    encoding: str, line_end: str, tmp_path: Path
) -> None:
    table, text = tmp_path / "list.tsv", tmp_path / "list.txt"
    table.write_bytes(LINES.replace("\n", line_end).encode(encoding))
    words = load_class_list(table)
    assert words.classes == (("cat", "kitten"), ("cr\u00e8me",))
    assert (words.ids, words.is_thing) == ((1, 2), (True, False))
    assert words.colors == ((1, 2, 3), (4, 5, 6))
    text.write_bytes(f"dog{line_end}m\u00f6we, gull{line_end}".encode(encoding))
    assert read_vocabulary(text).classes == (("dog",), ("m\u00f6we", "gull"))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xff\xfe\x00dog")
    with pytest.raises(ValueError, match=r"words\.txt is not UTF-8 text.*save it as UTF-8"):
        read_vocabulary(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.txt does not exist"):
        read_vocabulary(tmp_path / "absent.txt")


def test_words_in_a_row_are_one_class_each() -> None:
    assert parse_class_row("sky, dog,traffic light").names == ("sky", "dog", "traffic light")
    assert parse_class_row("sky,").names == ("sky",)


@pytest.mark.parametrize(
    ("text", "message"), [("a,,b", "class 1: .* found a blank"), ("a, b, a", "'a'")]
)
def test_wrong_words_in_a_row_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_class_row(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", "a saved web page"),
        ("\n <HTML>\n", "a saved web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git-lfs"),
        ('{"classes": ["sky"]}\n', "JSON"),
        ("[\n", "JSON"),
        ('<?xml version="1.0"?>\n', "XML"),
        ("%PDF-1.7\n", "a PDF document"),
        ("{\\rtf1\\ansi sky}\n", "an RTF document"),
    ],
)
def test_another_kind_of_file_is_named(text: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"words\.txt is .*{kind}.*, not a word list"):
        read_vocabulary(path)


@pytest.mark.parametrize(
    "lines",
    [
        *("0,person\n1,car\n", "0 person\n1 car\n", "1. person\n2. car\n", "- person\n- car\n"),
        "id,name\n0,person\n1,car\n",
    ],
)
def test_numbers_before_the_names_are_not_taken_for_words(lines: str) -> None:
    with pytest.raises(
        ValueError, match=r"lines begin with numbers or bullets.*(person|car)'.*id: name"
    ):
        parse_vocabulary(lines.split("\n"), "list")
    more = ["dog", "24 hour shop, kiosk", *lines.split("\n"), "cat"]
    assert len(parse_vocabulary(more, "list")) == 3 + lines.count("\n")


def test_a_word_above_words_that_begin_with_numbers_is_no_title() -> None:
    lines = ["person, pedestrian", "2 wheeler", "4 wheeler"]
    assert parse_vocabulary(lines, "list").names == tuple(lines)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match=r"1,073,741,824 bytes; expected a word list"):
        read_vocabulary(path)


def test_words_are_read_from_a_file_or_from_the_text_itself(tmp_path: Path) -> None:
    path = tmp_path / "a, b.txt"
    path.write_text("sky\ndog, puppy\n")
    assert read_words(str(path)).names == ("sky", "dog, puppy")
    # Longer than the name of a file may be.
    assert len(read_words(", ".join(f"thing {index}" for index in range(500)))) == 500
    with pytest.raises(FileNotFoundError, match=r"absent\.txt does not exist"):
        read_words(str(tmp_path / "absent.txt"))
