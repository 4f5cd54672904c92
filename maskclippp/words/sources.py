"""Which words name the classes of a dataset: what DATASETS.VOCABULARY chooses.

========================  =====================================================================
``builtin``               the words under which each dataset is registered
``openseg``               the OpenSeg lists for every dataset that has one, for others ``builtin``
``auto``                  ``openseg`` when all lists are downloaded, else ``builtin``
a path                    a text file (see ``word_lists.py``): the classes of the test sets
words, by commas          the classes of the test sets, one word each: ``"sky, dog, tree"``
========================  =====================================================================

The first three hold for training sets as well as for test sets, as in the published protocol:
they decide which test classes count as seen. Words of a user are for the test sets; what training
sets are annotated with keeps its words, as by ``auto``.
"""

import difflib
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

from maskclippp.errors import InputError, MissingFileError
from maskclippp.words.openseg import (
    DOWNLOAD_COMMAND,
    class_positions,
    downloaded,
    find_list,
    read_openseg_words,
)
from maskclippp.words.vocabulary import (
    Vocabulary,
    class_names_of,
    registered_vocabulary,
    shared_vocabulary,
)
from maskclippp.words.word_lists import WordList, read_word_list, words_in_a_row

KEY = "DATASETS.VOCABULARY"
NAMED_SELECTIONS = ("auto", "builtin", "openseg")

logger = logging.getLogger(__name__)


def resolved_selection(selection: str) -> str:
    """The selection, with ``auto`` replaced by what it means on this machine."""
    if selection != "auto":
        return selection
    present, total = downloaded()
    return "openseg" if present == total else "builtin"


def training_vocabulary(datasets: Sequence[str], selection: str) -> Vocabulary | None:
    """The one vocabulary of the training sets; None for none.

    Raises:
        ValueError: the sets do not agree class by class; or as :func:`evaluation_vocabulary`.
    """
    own = selection if selection in NAMED_SELECTIONS else "auto"
    return shared_vocabulary(datasets, functools.partial(_dataset_vocabulary, selection=own))


def evaluation_vocabulary(dataset_name: str, selection: str) -> Vocabulary:
    """The words for the classes of a test set.

    Raises:
        FileNotFoundError: ``openseg``, and the list is not downloaded; or a path that is not there.
        ValueError: a word list that cannot be used, or with another number of classes than the
            dataset is annotated with; a selection that means nothing; no words at all.
    """
    if selection in NAMED_SELECTIONS:
        return _dataset_vocabulary(dataset_name, selection)
    words = read_words(selection)
    metadata = MetadataCatalog.get(dataset_name)
    expected = class_names_of(metadata)
    if len(words.names) != len(expected):
        raise InputError(
            f"{KEY}: {words.source} has {len(words.names)} classes, but dataset {dataset_name} is "
            f"annotated with {len(expected)}, and evaluation compares class by class: write one "
            f"line for each of them, in its order ({expected[0].split(',')[0]!r} first). To look "
            "for other words without evaluation, call set_test_vocabulary on the model"
        )
    return Vocabulary.from_class_names(_in_order_of(metadata, words), words.source)


def _in_order_of(metadata: Any, words: WordList) -> Sequence[str]:
    """The names by class, where they are numbered by a dataset's category ids; else as they are."""
    positions = class_positions(metadata)
    if words.ids is None or set(words.ids) != set(positions):
        return words.names
    names = dict(zip(words.ids, words.names, strict=True))
    return [names[identity] for identity in sorted(names, key=lambda identity: positions[identity])]


def read_words(selection: str) -> WordList:
    """A user's words: of a text file, or in a row.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: words that are empty or stand twice, or a selection that means nothing.
    """
    path = Path(selection).expanduser()
    if selection and path.is_file():
        return read_word_list(path).require_unique()
    if "," in selection:
        return words_in_a_row(selection)
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


def _dataset_vocabulary(dataset_name: str, selection: str) -> Vocabulary:
    """The words of one dataset by a named selection."""
    entry = find_list(dataset_name)
    if entry is None or selection == "builtin":
        return registered_vocabulary(dataset_name)
    if resolved_selection(selection) == "builtin":
        _say_that_lists_are_absent(*downloaded())
        return registered_vocabulary(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    words = read_openseg_words(entry, metadata)
    expected = len(class_names_of(metadata))
    if len(words.names) != expected:
        raise InputError(
            f"{words.source} has {len(words.names)} classes, dataset {dataset_name} {expected}: "
            f"the dataset was registered with other classes; set {KEY} builtin"
        )
    return Vocabulary.from_class_names(words.names, words.source)


@functools.cache
def _say_that_lists_are_absent(present: int, total: int) -> None:
    """Once per process."""
    logger.info(
        "%s auto: %d of the %d OpenSeg word lists, on which published numbers rest, are on this "
        "machine; the built-in words are used. To get the lists: %s",
        KEY,
        present,
        total,
        DOWNLOAD_COMMAND,
    )
