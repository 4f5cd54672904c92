"""The shipped class lists hold the classes of their datasets, in the datasets' order."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from maskclippp.words import load_class_list
from tests.golden_cases import REPOSITORY, golden_root


class Expected(NamedTuple):
    """Facts of a dataset: number of classes and of things, some classes' ids and plainest names."""

    classes: int
    things: int
    names: dict[int, tuple[int, str]]  # position -> id, plainest name


EXPECTED = {
    "ade20k_150": Expected(
        150,
        100,
        {0: (0, "wall"), 12: (12, "person"), 75: (75, "swivel chair"), 149: (149, "flag")},
    ),
    "ade20k_847": Expected(
        847,
        0,
        {0: (2978, "wall"), 11: (1831, "person"), 846: (3148, "adding machine")},
    ),
    "cityscapes_19": Expected(
        19, 8, {0: (7, "road"), 10: (23, "sky"), 11: (24, "person"), 18: (33, "bicycle")}
    ),
    "coco_panoptic": Expected(
        133, 80, {0: (1, "person"), 79: (90, "toothbrush"), 80: (92, "banner"), 132: (200, "rug")}
    ),
    "coco_stuff_171": Expected(
        171, 80, {0: (1, "person"), 11: (13, "stop sign"), 80: (92, "banner"), 170: (182, "wood")}
    ),
    "lvis_1203": Expected(
        1203, 1203, {0: (1, "aerosol can"), 792: (793, "person"), 1202: (1203, "zucchini")}
    ),
    "mapillary_65": Expected(
        65, 37, {0: (1, "bird"), 19: (20, "person"), 55: (56, "car"), 64: (65, "ego vehicle")}
    ),
    "pascal_context_459": Expected(
        459, 0, {0: (1, "accordion"), 257: (258, "motorbike"), 458: (459, "wool")}
    ),
    "pascal_context_59": Expected(
        59, 0, {0: (2, "airplane"), 36: (284, "person"), 49: (397, "table"), 58: (458, "wood")}
    ),
    "pascal_voc_20": Expected(
        20, 20, {0: (1, "airplane"), 14: (15, "person"), 19: (20, "tv monitor")}
    ),
    "pascal_voc_21": Expected(21, 20, {0: (0, "background"), 20: (20, "tv monitor")}),
}
# File of the word lists of OpenSeg, for an independent record of names and order.
OPENSEG_FILES = {
    "ade20k_150": "ade20k_150",
    "ade20k_847": "ade20k_847",
    "cityscapes_19": "cityscapes",
    "coco_panoptic": "coco_panoptic",
    "coco_stuff_171": "coco_stuff",
    "lvis_1203": "lvis_1203",
    "mapillary_65": "mapillary_vistas",
    "pascal_context_459": "pascal_ctx_459",
    "pascal_context_59": "pascal_ctx_59",
    "pascal_voc_21": "pascal_voc_21",
}
LARGEST_SHARE_APART = 0.06


def openseg_lists() -> list[tuple[str, Path]]:
    """Names of our lists with OpenSeg's files; empty in a lone clone, which has none of them."""
    for folder in (golden_root().parent, REPOSITORY.parent / "shared"):
        openseg = folder / "vocabularies" / "openseg"
        if openseg.is_dir():
            return [
                (name, openseg / f"{file}_with_prompt_eng.txt")
                for name, file in OPENSEG_FILES.items()
            ]
    return []


def openseg_words(file: Path) -> list[set[str]]:
    """The words of every class, in order."""
    names = [line.split(":", 1)[1] for line in file.read_text().splitlines() if line.strip()]
    return [set(map(plain, n.split(","))) for n in names if n.strip() != "invalid_class_id"]


def plain(word: str) -> str:
    """A word as it is compared: lower case, letters and digits alone, without what brackets add."""
    return re.sub(r"\(.*?\)|[^a-z0-9]", "", word.lower())


def test_every_list_has_expectations() -> None:
    folder = REPOSITORY / "maskclippp" / "words" / "class_lists"
    assert {file.stem for file in folder.glob("*.tsv")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_counts_ids_and_names(name: str) -> None:
    classes, expected = load_class_list(name), EXPECTED[name]
    assert len(classes) == expected.classes
    assert sum(classes.is_thing) == expected.things
    found = {i: (classes.ids[i], classes.classes[i][0]) for i in expected.names}
    assert found == expected.names


@pytest.mark.parametrize("name", EXPECTED)
def test_words_are_clean(name: str) -> None:
    for synonyms in load_class_list(name).classes:
        for word in synonyms:
            assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9' -]*[a-zA-Z0-9.]", word), synonyms
        assert len(synonyms) <= 4 or synonyms[0] in ("background", "person")


@pytest.mark.parametrize(
    ("part", "whole"),
    [("pascal_voc_20", "pascal_voc_21"), ("pascal_context_59", "pascal_context_459")],
)
def test_classes_of_a_part_have_the_ids_of_the_whole(part: str, whole: str) -> None:
    classes = load_class_list(part)
    pairs = zip(classes.classes, load_class_list(whole).by_ids(classes.ids).classes, strict=True)
    different = [pair for pair in pairs if set(pair[0]).isdisjoint(pair[1])]
    assert different == []


def test_things_of_coco_stuff_are_those_of_coco_panoptic() -> None:
    def things(name: str) -> list[tuple[int, str, tuple[int, int, int]]]:
        found = load_class_list(name).things()
        plainest = [synonyms[0] for synonyms in found.classes]
        return list(zip(found.ids, plainest, found.colors, strict=True))

    assert things("coco_stuff_171") == things("coco_panoptic")


def test_order_is_that_of_openseg() -> None:
    """Nearly every class shares a word with OpenSeg's of the same number, and none of the others
    has a name that OpenSeg gives to another number. A lone clone has the facts above alone."""
    for name, file in openseg_lists():
        ours, theirs = load_class_list(name), openseg_words(file)
        assert len(ours) == len(theirs), name
        apart = [
            synonyms
            for synonyms, words in zip(ours.classes, theirs, strict=True)
            if {plain(word) for word in synonyms}.isdisjoint(words)
        ]
        assert len(apart) / len(ours) <= LARGEST_SHARE_APART, name
        all_words = set().union(*theirs)
        assert [synonyms for synonyms in apart if plain(synonyms[0]) in all_words] == [], name


def test_words_are_not_those_of_openseg() -> None:
    """Among the classes for which OpenSeg has several words, few have just these with us."""
    for name, file in openseg_lists():
        pairs = [
            ({plain(word) for word in synonyms}, words)
            for synonyms, words in zip(
                load_class_list(name).classes, openseg_words(file), strict=True
            )
            if len(words) > 1
        ]
        assert sum(ours == theirs for ours, theirs in pairs) / len(pairs) < 0.3, name
