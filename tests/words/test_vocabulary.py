"""Classes, synonyms, and how two vocabularies relate."""

import random

import pytest
import torch
from detectron2.data import MetadataCatalog

from maskclippp.words.vocabulary import Vocabulary
from tests.tiny_models import TEST_CLASSES, TEST_SET, TRAIN_CLASSES


def vocabulary(*names: str) -> Vocabulary:
    return Vocabulary.from_class_names(names)


def test_synonyms_are_split_at_commas_and_stripped() -> None:
    words = vocabulary("person, child,girl ", " traffic light")
    assert words.classes == (("person", "child", "girl"), ("traffic light",))
    assert words.synonyms == ("person", "child", "girl", "traffic light")
    assert words.num_synonyms == (3, 1)
    assert words.class_of_synonym.tolist() == [0, 0, 0, 1]
    assert len(words) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "found a blank"),
        (" , ", "found a blank"),
        ("cat,", "'cat,' has an empty synonym"),
        ("cat,,kitten", "empty synonym"),
    ],
)
def test_an_empty_name_is_refused_with_its_class(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"my words, class 1: .*{message}"):
        Vocabulary.from_class_names(["dog", name], source="my words")


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="no class names"):
        Vocabulary.from_class_names([])


def test_names_of_a_dataset_are_all_its_classes() -> None:
    words = Vocabulary.from_metadata(MetadataCatalog.get(TEST_SET))
    assert words == Vocabulary.from_class_names(TEST_CLASSES)


def test_a_set_of_things_only_uses_these() -> None:
    MetadataCatalog.get("vocabulary_things_only").set(thing_classes=["cat", "dog"])
    words = Vocabulary.from_metadata(MetadataCatalog.get("vocabulary_things_only"))
    assert words.synonyms == ("cat", "dog")


def test_a_dataset_without_names_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="'vocabulary_mistyped' has no class names"):
        Vocabulary.from_metadata(MetadataCatalog.get("vocabulary_mistyped"))


def test_sampling_draws_one_synonym_of_every_class() -> None:
    words = Vocabulary.from_class_names(TRAIN_CLASSES)
    draws = [words.sample_synonyms() for _ in range(100)]
    assert {words.class_of_synonym[rows].tolist() == [0, 1, 2] for rows in draws} == {True}
    assert {row for rows in draws for row in rows} == set(range(6))


def test_sampling_follows_pythons_generator() -> None:
    """The trainer seeds it alike on all ranks, which must classify into the same words."""
    words = Vocabulary.from_class_names(TRAIN_CLASSES)
    random.seed(3)
    torch.manual_seed(0)
    first = [words.sample_synonyms() for _ in range(5)]
    random.seed(3)
    torch.manual_seed(1)
    assert first == [words.sample_synonyms() for _ in range(5)]


def test_a_class_with_one_synonym_draws_no_number() -> None:
    """What is drawn for the others does not depend on it."""
    random.seed(3)
    alone = [row - 1 for row in vocabulary("sky", "cat, kitten, puss").sample_synonyms()[1:]]
    random.seed(3)
    assert vocabulary("cat, kitten, puss").sample_synonyms() == alone
    state = random.getstate()
    vocabulary("sky", "dog").sample_synonyms()
    assert random.getstate() == state


def test_a_class_is_seen_when_it_shares_any_synonym() -> None:
    train, test = vocabulary("cat, kitten", "dog"), vocabulary("kitten, puss", "bird", "hot dog")
    assert test.seen_in(train).tolist() == [True, False, False]


def test_a_train_class_goes_to_the_first_test_class_that_shares_a_name() -> None:
    train = vocabulary("cat, kitten", "car", "dog")
    test = vocabulary("dog", "kitten", "cat, dog")
    # The last entry is void; 3 stands for "no test class".
    assert test.class_of_train_class(train).tolist() == [1, 3, 0, 3]


def test_repeated_synonyms_are_listed_with_their_classes() -> None:
    words = vocabulary("dog, puppy", "cat", "puppy", "cat")
    with pytest.raises(
        ValueError, match=r"2 synonyms .*'puppy' \(classes 0, 2\), 'cat' \(classes 1,"
    ):
        words.require_unique()


def test_classes_are_selected_with_all_that_is_known_of_them() -> None:
    words = Vocabulary(
        (("sky",), ("dog", "puppy"), ("cat",)),
        "mine",
        ids=(9, 4, 6),
        is_thing=(False, True, True),
        colors=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
    )
    assert words.positions == {9: 0, 4: 1, 6: 2}
    things = words.things()
    assert things.names == ("dog, puppy", "cat")
    assert (things.ids, things.is_thing) == ((4, 6), (True, True))
    assert things.colors == ((2, 2, 2), (3, 3, 3))
    assert words.by_ids([4, 9]).classes == (("dog", "puppy"), ("sky",))
    assert vocabulary("sky", "dog").things() == Vocabulary(())
