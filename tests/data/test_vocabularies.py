"""The class lists that ship with the package."""

from pathlib import Path

import pytest

import maskclippp.data.vocabularies as vocabularies
from maskclippp.data.vocabularies import load_class_list

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
        ("", "holds no class"),
    ],
)
def test_malformed_list_names_file_and_line(lines: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "list.tsv"
    file.write_text(HEADER + lines)
    with pytest.raises(ValueError, match=message):
        load_class_list(file)


def test_unknown_list_names_the_shipped_ones() -> None:
    with pytest.raises(FileNotFoundError, match="coco_panoptic"):
        load_class_list("nonsense")
