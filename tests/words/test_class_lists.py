"""The class lists that ship with the package."""

from pathlib import Path

import pytest

import maskclippp.words.class_lists as vocabularies
from maskclippp.words.class_lists import load_class_list

HEADER = "id\tkind\tcolor\twords\n"
SHIPPED = sorted(file.stem for file in Path(vocabularies.__file__).parent.glob("*.tsv"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_list_is_well_formed(name: str) -> None:
    assert load_class_list(name)  # reading refuses duplicate ids and words


def test_coco_panoptic_has_its_things_before_its_stuff() -> None:
    classes = load_class_list("coco_panoptic")
    assert [c.is_thing for c in classes] == [True] * 80 + [False] * 53
    assert [c.category_id for c in classes] == sorted(c.category_id for c in classes)
    assert (classes[0].category_id, classes[-1].category_id) == (1, 200)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1\tthing\t1,2,3\tcat\n1\tstuff\t1,2,3\tsky\n", r":3: id 1 stands already in line 2"),
        ("1\tthing\t1,2,3\tcat\n2\tstuff\t1,2,3\tsky, cat\n", r":3: word 'cat' stands already"),
        ("1\tthing\t1,2,3\n", r":2: expected 4 tab-separated columns"),
        ("1\tanimal\t1,2,3\tcat\n", r":2: expected an integer id"),
        ("1\tthing\t1,2,300\tcat\n", r":2: expected an integer id"),
        ("1\tthing\t1,2,3\tcat,,dog\n", r":2: expected an integer id"),
        ("\u00b2\tthing\t1,2,3\tcat\n", r":2: expected an integer id"),
        ("\u0663\tthing\t1,2,3\tcat\n", r":2: expected an integer id"),
        ("1\tthing\t1,2,\u00b2\tcat\n", r":2: expected an integer id"),
        ("", "holds no class"),
    ],
)
def test_malformed_list_names_file_and_line(lines: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "list.tsv"
    file.write_text(HEADER + lines, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
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
    file = tmp_path / "list.tsv"
    file.write_bytes(LINES.replace("\n", line_end).encode(encoding))
    first, second = load_class_list(file)
    assert first.synonyms == ["cat", "kitten"]
    assert second.words == "cr\u00e8me"


def test_file_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "list.tsv"
    file.write_bytes(LINES.encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.tsv: is no UTF-8 text.*save it as UTF-8"):
        load_class_list(file)
