"""DATASETS.VOCABULARY: built-in words, the OpenSeg lists, and a user's own."""

import hashlib
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.errors import InputError
from maskclippp.words import openseg, sources
from maskclippp.words.openseg import OpenSegList, downloaded, openseg_lists
from maskclippp.words.sources import (
    evaluation_vocabulary,
    read_selection,
    read_words,
    resolved_selection,
    training_vocabulary,
)
from maskclippp.words.vocabulary import registered_vocabulary
from tests.golden_cases import REPOSITORY, golden_root

COCO = "openvocab_coco_2017_val_panoptic_with_sem_seg"
COCO_TRAIN = "openvocab_coco_2017_train_panoptic_with_sem_seg"
PLAIN = "vocabulary_sources_plain"
MetadataCatalog.get(PLAIN).set(stuff_classes=["sky, air", "dog", "tree"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path))
    sources._report_missing_lists.cache_clear()
    return tmp_path / "vocabularies"


def published_lists() -> Path | None:
    """The real lists, beside the golden cases; a lone clone has none."""
    folders = [golden_root().parent / "vocabularies", REPOSITORY.parent / "shared" / "vocabularies"]
    return next((f / "openseg" for f in folders if (f / "openseg").is_dir()), None)


@pytest.fixture
def lists(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a list for COCO panoptic of our own making, which the table then knows."""
    cache.mkdir()
    metadata = MetadataCatalog.get(COCO)
    ids = metadata.stuff_dataset_id_to_contiguous_id
    words = dict.fromkeys(range(max(ids) + 1), "invalid_class_id")
    words.update({identity: f"thing number {identity},object {identity}" for identity in ids})
    text = "\n".join(f"{identity}:{name}" for identity, name in words.items())
    (cache / "ours.txt").write_text(text)
    (published,) = (entry for entry in openseg_lists() if COCO in entry.datasets)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    ours = OpenSegList("ours.txt", sha256, published.datasets, by_category_id=True)
    monkeypatch.setattr(openseg, "openseg_lists", lambda: (ours,))
    return cache


def test_builtin_words_are_those_of_the_registration() -> None:
    assert evaluation_vocabulary(COCO, "builtin") == registered_vocabulary(COCO)
    assert training_vocabulary([COCO_TRAIN], "builtin") == registered_vocabulary(COCO_TRAIN)


def test_auto_is_builtin_without_lists_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "maskclippp.words.sources"):
        for _ in range(2):
            assert evaluation_vocabulary(COCO, "auto") == registered_vocabulary(COCO)
    assert resolved_selection("auto") == "builtin"
    assert len(caplog.records) == 1
    assert "maskclippp download vocabularies" in caplog.text


@pytest.mark.usefixtures("lists")
def test_auto_is_openseg_when_all_lists_are_there() -> None:
    assert resolved_selection("auto") == "openseg"
    words = evaluation_vocabulary(COCO, "auto")
    assert words.classes[0] == ("thing number 1", "object 1")
    assert words.source == "openseg/ours.txt"
    assert training_vocabulary([COCO_TRAIN], "auto") == words


@pytest.mark.usefixtures("lists")
def test_things_are_named_by_their_category_ids() -> None:
    things = MetadataCatalog.get(COCO).thing_dataset_id_to_contiguous_id
    words = evaluation_vocabulary("openvocab_coco_2017_val", "openseg")
    assert words.classes == tuple((f"thing number {i}", f"object {i}") for i in things)


def test_openseg_words_that_are_absent_say_how_to_get_them(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"maskclippp download vocabularies") as error:
        evaluation_vocabulary(COCO, "openseg")
    assert str(cache / "coco_panoptic_with_prompt_eng.txt") in str(error.value)


def test_a_list_that_was_changed_is_refused(lists: Path) -> None:
    (lists / "ours.txt").write_text("1:person")
    with pytest.raises(ValueError, match="is not the published list"):
        evaluation_vocabulary(COCO, "openseg")


@pytest.mark.usefixtures("lists")
def test_a_dataset_without_list_keeps_its_words() -> None:
    assert evaluation_vocabulary(PLAIN, "openseg") == registered_vocabulary(PLAIN)


def test_a_users_file_names_the_test_classes_and_not_the_training_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("heaven\nhound, dog\noak")
    words = evaluation_vocabulary(PLAIN, str(path))
    assert words.classes == (("heaven",), ("hound", "dog"), ("oak",))
    assert words.source == str(path)
    assert training_vocabulary([PLAIN], str(path)) == registered_vocabulary(PLAIN)


def test_words_in_a_row_name_the_test_classes() -> None:
    assert evaluation_vocabulary(PLAIN, "heaven, hound, oak").synonyms == ("heaven", "hound", "oak")


@pytest.mark.parametrize(("words", "count"), [("heaven, hound", 2), ("a, b, c, d", 4)])
def test_a_users_words_must_fit_the_annotation(words: str, count: int) -> None:
    message = rf"has {count} classes, but dataset .* with 3.*'sky' first"
    with pytest.raises(ValueError, match=message):
        evaluation_vocabulary(PLAIN, words)


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ("openseq", ValueError, "did you mean openseg"),
        ("dog", ValueError, "write 'dog,'"),
        ("words/absent.txt", FileNotFoundError, r"absent\.txt does not exist"),
        ("dog, dog", ValueError, "more than once"),
        ("", ValueError, "neither one of"),
    ],
)
def test_a_selection_that_means_nothing_is_explained(
    selection: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_selection(selection)


def test_a_users_file_may_not_repeat_words(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("dog, hound\ncat\nhound")
    with pytest.raises(ValueError, match="'hound' \\(classes 0, 2\\)"):
        evaluation_vocabulary(PLAIN, str(path))


def test_training_sets_with_different_words_are_refused() -> None:
    with pytest.raises(ValueError, match="have different classes"):
        training_vocabulary([COCO, PLAIN], "auto")


def test_the_provenance_tells_words_apart() -> None:
    words = evaluation_vocabulary(PLAIN, "builtin")
    found = words.provenance()
    text = "sky,air\ndog\ntree"
    assert found["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (found["classes"], found["names"]) == (3, 4)
    others = evaluation_vocabulary(PLAIN, "heaven, hound, oak").provenance()
    assert others["sha256"] != found["sha256"]
    assert others["source"] == "the words 'heaven, hound, oak'"


def test_every_list_is_known_by_its_hash_and_used_by_one_registration_each() -> None:
    assert len({entry.file for entry in openseg_lists()}) == 10
    assert all(len(entry.sha256) == 64 for entry in openseg_lists())
    names = [name for entry in openseg_lists() for name in entry.datasets]
    assert len(names) == len(set(names))
    assert downloaded() == (0, 10)


def test_published_lists_fit_the_registered_classes(cache: Path) -> None:
    """On the real lists where they are; each then names most classes as we do, at their places."""
    folder = published_lists()
    if folder is None:
        assert downloaded()[0] == 0
        return
    cache.symlink_to(folder)
    for entry in openseg_lists():
        assert hashlib.sha256((folder / entry.file).read_bytes()).hexdigest() == entry.sha256
        for name in sorted(entry.datasets):
            if name not in DatasetCatalog.list():
                continue  # there is no Mapillary training set, for example
            theirs, ours = evaluation_vocabulary(name, "openseg"), registered_vocabulary(name)
            assert len(theirs) == len(ours)
            shared = [
                not {w.lower() for w in a}.isdisjoint(w.lower() for w in b)
                for a, b in zip(theirs.classes, ours.classes, strict=True)
            ]
            assert sum(shared) > 0.6 * len(shared), name


def test_numbered_words_of_a_user_go_to_the_categories_of_their_ids(tmp_path: Path) -> None:
    name = "vocabulary_sources_unordered"
    positions = {9: 0, 4: 1}
    MetadataCatalog.get(name).set(
        stuff_classes=["sky", "dog"], stuff_dataset_id_to_contiguous_id=positions
    )
    words = tmp_path / "words.txt"
    words.write_text("4: hound\n9: heaven")
    assert evaluation_vocabulary(name, str(words)).classes == (("heaven",), ("hound",))
    words.write_text("1: heaven\n2: hound")
    assert evaluation_vocabulary(name, str(words)).classes == (("heaven",), ("hound",))
    MetadataCatalog.remove(name)


def test_only_published_lists_may_share_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of OpenSeg's lists do; they are known by their content, wherever they are."""
    file = tmp_path / "words.txt"
    file.write_text("rug, carpet\nrug\n")
    with pytest.raises(InputError, match="1 synonyms occur more than once"):
        read_words(str(file))
    known = OpenSegList("other.txt", hashlib.sha256(file.read_bytes()).hexdigest(), frozenset())
    monkeypatch.setattr(openseg, "openseg_lists", lambda: (known,))
    assert read_words(str(file)).classes == (("rug", "carpet"), ("rug",))
    assert "1 synonyms occur more than once" in caplog.text
