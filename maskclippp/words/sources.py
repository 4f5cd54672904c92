"""Chooses the vocabulary of a dataset: what DATASETS.VOCABULARY means.

=======================  ======================================================================
``builtin``              the classes under which each dataset is registered
``openseg``              OpenSeg's list for every dataset that has one, ``builtin`` for others
``auto``                 ``openseg`` if all lists are downloaded, else ``builtin``
a path                   a text file with the test classes (see ``class_files.py``)
words                    the test classes: ``"sky, dog, tree"``, or with synonyms
                         ``"cat, kitten; table"``
=======================  ======================================================================

The first three apply to training sets as well as to test sets, as in the published protocol: they
decide which test classes count as seen. A user's own classes apply to test sets only; training sets
keep theirs, as with ``auto``.
"""

import difflib
import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from maskclippp.errors import InputError, MissingFileError
from maskclippp.words.class_files import parse_class_row, read_vocabulary
from maskclippp.words.openseg import (
    DOWNLOAD_COMMAND,
    downloaded,
    find_list,
    is_published,
    read_openseg_vocabulary,
)
from maskclippp.words.spelling import separates_words
from maskclippp.words.vocabulary import Vocabulary, registered_vocabulary

KEY = "DATASETS.VOCABULARY"
NAMED_SELECTIONS = ("auto", "builtin", "openseg")

logger = logging.getLogger(__name__)


def resolved_selection(selection: str) -> str:
    """The selection, with ``auto`` replaced by what it means on this machine."""
    if selection != "auto":
        return selection
    present, total = downloaded()
    return "openseg" if present == total else "builtin"


def training_vocabulary(datasets: Sequence[str], selection: str = "builtin") -> Vocabulary | None:
    """The vocabulary that the training sets share; None if there are no sets.

    Raises:
        InputError: the sets differ in their classes; or as :func:`evaluation_vocabulary`.
    """
    named = selection if selection in NAMED_SELECTIONS else "auto"
    vocabularies = [_named_vocabulary(name, named) for name in datasets]
    for name, vocabulary in zip(datasets, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise InputError(
                f"DATASETS.TRAIN: {datasets[0]!r} ({len(vocabularies[0])} classes) and {name!r} "
                f"({len(vocabulary)} classes) have different classes; train on sets that share "
                "one vocabulary"
            )
    return vocabularies[0] if vocabularies else None


def evaluation_vocabulary(dataset_name: str, selection: str) -> Vocabulary:
    """The vocabulary for the classes of a test set.

    Raises:
        MissingFileError: a file does not exist, or ``openseg`` and its list is not downloaded.
        InputError: a malformed class list, or one with another number of classes than the dataset;
            an unknown selection; a dataset without class names.
    """
    if selection in NAMED_SELECTIONS:
        return _named_vocabulary(dataset_name, selection)
    own = read_selection(selection)
    registered = registered_vocabulary(dataset_name)
    if len(own) != len(registered):
        raise InputError(
            f"{KEY}: {own.source} has {len(own)} classes, but dataset {dataset_name} is annotated "
            f"with {len(registered)}, and evaluation compares class by class: write one line for "
            f"each of them, in its order ({registered.synonyms[0]!r} first). To segment other "
            "classes without evaluation, call set_test_vocabulary on the model"
        )
    # Classes that are numbered by the dataset's category ids are brought into its order.
    return own.by_ids(registered.ids) if set(own.ids) == set(registered.ids) != set() else own


def read_selection(selection: str) -> Vocabulary:
    """A user's own vocabulary: a text file, or words in a row.

    Raises:
        MissingFileError: a path that does not exist.
        InputError: see :func:`read_words`; or an unknown selection.
    """
    if separates_words(selection) or is_word_file(selection):
        return read_words(selection)
    path = Path(selection)
    if path.suffix or len(path.parts) > 1:
        raise MissingFileError(
            f"{KEY}: {selection} does not exist (looked in {Path.cwd()}); expected a text file "
            f"with one class per line, words separated by commas, or one of {NAMED_SELECTIONS}"
        )
    near = difflib.get_close_matches(selection, NAMED_SELECTIONS, n=1)
    raise InputError(
        f"{KEY}: {selection!r} is neither one of {NAMED_SELECTIONS} nor a file"
        + (f"; did you mean {near[0]}?" if near else "")
        + f" Words are separated by commas; for a single one write '{selection},'"
    )


def read_words(words: str) -> Vocabulary:
    """The classes in a text file, or in the text itself if it separates words.

    Classes of a published list may share words, as some of them do.

    Raises:
        MissingFileError: neither a file nor several words.
        InputError: see :func:`read_vocabulary` and :func:`parse_class_row`.
    """
    if separates_words(words) and not is_word_file(words):
        return parse_class_row(words)
    path = Path(os.path.expanduser(words))  # noqa: PTH111
    return read_vocabulary(path).require_unique(warn_only=path.is_file() and is_published(path))


def is_word_file(text: str) -> bool:
    """Whether a text names a file; a long row of words does not."""
    # Unlike this, Path.is_file() raises an error for a name that is too long.
    return os.path.isfile(os.path.expanduser(text))  # noqa: PTH111, PTH113


def _named_vocabulary(dataset_name: str, selection: str) -> Vocabulary:
    entry = find_list(dataset_name)
    if entry is None or selection == "builtin":
        return registered_vocabulary(dataset_name)
    if resolved_selection(selection) == "builtin":
        _report_missing_lists(*downloaded())
        return registered_vocabulary(dataset_name)
    return read_openseg_vocabulary(entry, dataset_name)


@functools.cache
def _report_missing_lists(present: int, total: int) -> None:
    """Once per process."""
    logger.info(
        "%s auto: %d of the %d OpenSeg class lists, which published numbers are based on, are on "
        "this machine; the built-in synonyms are used. To get the lists: %s",
        KEY,
        present,
        total,
        DOWNLOAD_COMMAND,
    )
