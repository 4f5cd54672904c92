"""Class names in text files and in a row."""

from pathlib import Path

import pytest

from maskclippp.words.word_lists import parse_names, parse_word_list, read_word_list, words_in_a_row


def test_a_line_is_a_class_with_its_synonyms() -> None:
    words = parse_word_list(["# mine", "sky", "", " dog ,puppy", "tree"], "mine")
    assert words.names == ("sky", "dog, puppy", "tree")
    assert words.ids is None


def test_ids_are_read_and_invalid_ones_left_out() -> None:
    lines = ["0:invalid_class_id", "1:person,child", "12:invalid_class_id", "13: stop sign"]
    words = parse_word_list(lines, "list")
    assert words.names == ("person, child", "stop sign")
    assert words.ids == (1, 13)


def test_a_colon_within_a_name_is_part_of_it() -> None:
    assert parse_word_list(["star: red"], "list").names == ("star: red",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dog", "cat,,kitten"], r"list, line 2: 'cat,,kitten' has an empty word"),
        (["1:dog", "cat"], r"line 2: 'cat' has no id"),
        (["dog", "1:cat"], r"line 2: '1:cat' has an id"),
        (["2:dog", "1:cat"], r"line 2: id 1 follows id 2"),
        (["2:dog", "2:cat"], r"line 2: id 2 follows id 2"),
        (["3:"], r"line 1: '' has an empty word"),
        (["0:invalid_class_id"], "holds no class"),
        ([], "holds no class"),
    ],
)
def test_wrong_lines_are_named(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_word_list(lines, "list")


def test_words_that_stand_twice_are_listed_with_their_classes() -> None:
    words = parse_word_list(["dog, puppy", "cat", "puppy", "cat"], "list")
    with pytest.raises(ValueError, match=r"2 words .*'puppy' \(classes 0, 2\), 'cat' \(classes 1,"):
        words.require_unique()


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("﻿dog\r\nmöwe, gull\r\n".encode())
    assert read_word_list(path).names == ("dog", "möwe, gull")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xff\xfe\x00dog")
    with pytest.raises(ValueError, match=r"words\.txt is no UTF-8 text"):
        read_word_list(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.txt does not exist"):
        read_word_list(tmp_path / "absent.txt")


def test_words_in_a_row_are_one_class_each() -> None:
    assert words_in_a_row("sky, dog,traffic light").names == ("sky", "dog", "traffic light")
    assert words_in_a_row("sky,").names == ("sky",)


@pytest.mark.parametrize(("text", "message"), [("a,,b", "empty word"), ("a, b, a", "'a'")])
def test_wrong_words_in_a_row_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        words_in_a_row(text)


def test_names_given_one_by_one_may_have_synonyms() -> None:
    assert parse_names(["sky", "dog, puppy"], "mine").names == ("sky", "dog, puppy")
    with pytest.raises(ValueError, match="mine: no class is given"):
        parse_names([], "mine")
