"""Requested words: things, seen classes, and their tables."""

import pytest
import torch
from detectron2.data import MetadataCatalog

from maskclippp.words import RequestedWords, Vocabulary
from tests.tiny_models import TEST_CLASSES, TEST_SET, TEST_THINGS, TRAIN_CLASSES


def test_a_dataset_says_what_its_things_are() -> None:
    words = RequestedWords.of_dataset(TEST_SET, "builtin")
    assert words.vocabulary == Vocabulary.from_class_names(TEST_CLASSES)
    assert words.thing_classes == TEST_THINGS


@pytest.mark.parametrize(("key", "things"), [("stuff_classes", 0), ("thing_classes", 2)])
def test_things_of_a_dataset_with_one_kind_of_class(key: str, things: int) -> None:
    name = f"requested_{key}"
    MetadataCatalog.get(name).set(**{key: ["sky", "dog"]})
    words = RequestedWords.of_dataset(name, "builtin")
    assert words.thing_classes == frozenset(range(things))
    MetadataCatalog.remove(name)


def test_classes_of_the_training_set_are_seen() -> None:
    train = Vocabulary.from_class_names(TRAIN_CLASSES)
    words = RequestedWords.of_dataset(TEST_SET, "builtin", train)
    assert words.seen.tolist() == [False, True, True, False]
    assert not RequestedWords.of_dataset(TEST_SET, "builtin").seen.any()


def test_tables_are_computed_once() -> None:
    words = RequestedWords(Vocabulary.from_class_names(["sky, air", "dog"]))
    device = torch.device("cpu")
    assert words.class_of_synonym(device).tolist() == [0, 0, 1]
    assert words.class_of_synonym(device) is words.class_of_synonym(device)
    own = Vocabulary.from_class_names(["dog", "air"])
    assert words.class_of_own_class(own).tolist() == [1, 0, 2]
    assert words.class_of_own_class(own) is words.class_of_own_class(own)


def test_thing_classes_must_exist() -> None:
    with pytest.raises(ValueError, match=r"thing classes \[2\] are not in 0\.\.1"):
        RequestedWords(Vocabulary.from_class_names(["a", "b"]), frozenset({2}))


def test_the_provenance_is_that_of_both_vocabularies() -> None:
    test, train = (Vocabulary.from_class_names(c) for c in (TEST_CLASSES, TRAIN_CLASSES))
    assert RequestedWords(test).provenance() == {"test_vocabulary": test.provenance()}
    both = RequestedWords(test, train_vocabulary=train).provenance()
    assert both["train_vocabulary"] == train.provenance()
