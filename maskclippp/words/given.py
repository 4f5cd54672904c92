"""What people may give as words, and which of these words they mean as things."""

import difflib
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from maskclippp.errors import InputError
from maskclippp.words.class_files import load_class_list
from maskclippp.words.requested import RequestedWords
from maskclippp.words.sources import is_word_file, read_words
from maskclippp.words.spelling import separates_words
from maskclippp.words.vocabulary import Vocabulary

Words: TypeAlias = str | Path | Sequence[str] | Vocabulary

# Shipped lists that say of common words whether they are things or stuff.
_KIND_LISTS = ("coco_panoptic", "ade20k_150")


def given_words(
    words: Words,
    things: Iterable[str] | None = None,
    *,
    train_vocabulary: Vocabulary | None = None,
    selection: str = "builtin",
    known: RequestedWords | None = None,
) -> RequestedWords:
    """The words that a person gives.

    Args:
        words: a list with one text per class, synonyms separated by commas; or one text, as in
            ``"cat, kitten; grass"`` or ``"cat, grass"``; or the path of a word file; or the name of
            a registered dataset or of a shipped class list.
        things: synonyms of the classes that have instances. By default a word file or a dataset
            says it; of other words, those are things that no shipped list has as stuff.
        train_vocabulary: what the model was trained on.
        selection: which words a dataset's classes have, see DATASETS.VOCABULARY.
        known: is returned if it has the same words; its text embeddings are known.

    Raises:
        InputError: no, empty, repeated or malformed words; an unknown name; unknown things.
        MissingFileError: a file that does not exist.
    """
    if isinstance(words, str) and _is_name(words):
        found = _named(words, train_vocabulary, selection)
    else:
        vocabulary = _vocabulary(words)
        kinds = vocabulary.is_thing or tuple(map(_may_be_thing, vocabulary.classes))
        numbers = frozenset(index for index, is_thing in enumerate(kinds) if is_thing)
        found = RequestedWords(vocabulary, numbers, train_vocabulary)
    if things is not None:
        if isinstance(things, str):
            raise InputError(f"things: expected a list of words such as [{things!r}], found a text")
        numbers = frozenset(_class_of(word, found.vocabulary) for word in things)
        found = RequestedWords(found.vocabulary, numbers, train_vocabulary)
    return known if known == found and known is not None else found


def _vocabulary(words: Words) -> Vocabulary:
    if isinstance(words, Vocabulary):
        return words
    if isinstance(words, Path):
        return read_words(str(words))
    if isinstance(words, str) and (separates_words(words) or is_word_file(words)):
        return read_words(words)
    if isinstance(words, str):
        if Path(words).suffix or len(Path(words).parts) > 1:
            return read_words(words)  # a file that does not exist
        words = [words]
    return Vocabulary.from_class_names(words, "the words").require_unique()


def _is_name(words: str) -> bool:
    """Whether a text names a dataset or a class list: words do not have underscores."""
    return "_" in words and not separates_words(words) and not is_word_file(words)


def _named(name: str, train: Vocabulary | None, selection: str) -> RequestedWords:
    # Importing the catalog registers the datasets, whose class lists this package reads.
    from detectron2.data import DatasetCatalog

    if name in DatasetCatalog.list():
        return RequestedWords.of_dataset(name, selection, train)
    lists = shipped_lists()
    if name in lists:
        vocabulary = load_class_list(name)
        things = frozenset(i for i, is_thing in enumerate(vocabulary.is_thing) if is_thing)
        return RequestedWords(vocabulary, things, train)
    if Path(name).suffix:
        read_words(name)  # a file that does not exist
    near = difflib.get_close_matches(name, [*DatasetCatalog.list(), *lists], n=3, cutoff=0.4)
    raise InputError(
        f"no dataset, class list or word file is called {name!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else ".")
        + f" If it is meant as a word, write ['{name}'], or {name.replace('_', ' ')!r}"
    )


@functools.cache
def shipped_lists() -> tuple[str, ...]:
    """The names of the class lists that are part of the package."""
    folder = Path(__file__).parent / "class_lists"
    return tuple(sorted(file.stem for file in folder.glob("*.tsv")))


@functools.cache
def _stuff_words() -> frozenset[str]:
    """Words that shipped lists have as stuff, and none as things."""
    words: dict[bool, set[str]] = {True: set(), False: set()}
    for name in _KIND_LISTS:
        vocabulary = load_class_list(name)
        for synonyms, is_thing in zip(vocabulary.classes, vocabulary.is_thing, strict=True):
            words[is_thing] |= {word.lower() for word in synonyms}
    return frozenset(words[False] - words[True])


def _may_be_thing(synonyms: Sequence[str]) -> bool:
    return _stuff_words().isdisjoint(word.lower() for word in synonyms)


def _class_of(word: str, vocabulary: Vocabulary) -> int:
    for index, synonyms in enumerate(vocabulary.classes):
        if word in synonyms or word == vocabulary.names[index]:
            return index
    raise InputError(f"things: {word!r} is not among the words {list(vocabulary.names)[:20]}")
