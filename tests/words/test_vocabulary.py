"""Class names, synonyms, templates, and how the words of two datasets relate."""

import random

import pytest
import torch
from detectron2.data import MetadataCatalog

from maskclippp.words.vocabulary import TEMPLATES, Vocabulary, get_templates
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


@pytest.mark.parametrize("name", ["", "cat,", "cat,,kitten", " , "])
def test_an_empty_name_is_refused_with_its_class(name: str) -> None:
    with pytest.raises(ValueError, match=r"my words: class 1 is .* empty name"):
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


def test_a_class_is_seen_when_it_shares_any_synonym() -> None:
    train, test = vocabulary("cat, kitten", "dog"), vocabulary("kitten, puss", "bird", "hot dog")
    assert test.seen_in(train).tolist() == [True, False, False]


def test_a_train_class_goes_to_the_first_test_class_that_shares_a_name() -> None:
    train = vocabulary("cat, kitten", "car", "dog")
    test = vocabulary("dog", "kitten", "cat, dog")
    # The last entry is void; 3 stands for "no test class".
    assert test.class_of_train_class(train).tolist() == [1, 3, 0, 3]


def test_every_template_has_one_place_for_the_name() -> None:
    assert {len(TEMPLATES[name]) for name in TEMPLATES} == {1, 14, 80}
    for name in TEMPLATES:
        assert all("a zebra" in template.format("a zebra") for template in get_templates(name))


def test_unknown_templates_list_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"TEMPLATES: 't15' is not one of \['t1', 't14', 't80'\]"):
        get_templates("t15")
