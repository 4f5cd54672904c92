"""What people may give as words."""

from pathlib import Path

import pytest

from maskclippp.words.given import given_words


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["cat, kitten", "grass"], ("cat, kitten", "grass")),
        ("cat, kitten; grass", ("cat, kitten", "grass")),
        ("cat, grass", ("cat", "grass")),
        ("cat", ("cat",)),
        ("traffic light", ("traffic light",)),
    ],
)
def test_lists_and_texts(words: list[str] | str, names: tuple[str, ...]) -> None:
    assert given_words(words).vocabulary.names == names


def test_files_datasets_and_class_lists(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("cat, kitten\ngrass\n")
    assert given_words(file) == given_words(str(file)) == given_words(["cat, kitten", "grass"])
    ade = given_words("openvocab_ade20k_panoptic_val")
    assert (len(ade), len(ade.thing_classes)) == (150, 100)
    coco = given_words("coco_panoptic")
    assert (len(coco), len(coco.thing_classes)) == (133, 80)


def test_things_are_what_is_not_known_as_stuff() -> None:
    words = ["dog, puppy", "grass", "unicorn", "sky"]
    assert given_words(words).thing_classes == {0, 2}
    assert given_words(["table", "grass", "Window"]).thing_classes == {0, 2}  # of one list or both
    assert given_words(words, things=["sky", "puppy"]).thing_classes == {0, 3}
    assert given_words(words, things=[]).thing_classes == set()


def test_the_same_words_are_the_same_object() -> None:
    known = given_words(["cat", "grass"])
    assert given_words("cat, grass", known=known) is known
    assert given_words("cat, tree", known=known) is not known


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("words.txt", r"words\.txt does not exist"),
        ("folder/words", r"folder/words does not exist"),
        ("coco_panoptik", r"did you mean coco_panoptic"),
        ([], r"no class names were given"),
        ([3], r"expected a text such as"),
        ({"cat", "dog"}, r"expected a list of texts .*, found set"),
        (None, r"expected a list of texts .*, found NoneType"),
    ],
)
def test_wrong_words_are_one_sentence(words: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given_words(words)


def test_things_are_a_list() -> None:
    with pytest.raises(ValueError, match=r"things: expected a list of words such as \['cat'\]"):
        given_words(["cat", "grass"], things="cat")
