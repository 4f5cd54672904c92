"""Words: what masks are classified into.

A *class* is what one annotation number means; it has one or more *synonyms*, for example "person",
"child", "girl". A *vocabulary* is a list of classes. It comes from a dataset's registration, a
class list that ships with the package, OpenSeg, or a user's file or text (:mod:`.sources`,
:mod:`.class_files`). :mod:`.spelling` says what may be a word, and which
words CLIP can tell apart. A :class:`TextClassifier` embeds the synonyms in prompt templates.
:class:`RequestedWords` is what a model is asked to find.
"""

from maskclippp.words.class_files import (
    load_class_list,
    parse_class_row,
    read_vocabulary,
)
from maskclippp.words.requested import RequestedWords
from maskclippp.words.sources import evaluation_vocabulary, read_words, training_vocabulary
from maskclippp.words.templates import get_templates
from maskclippp.words.text_classifier import TextClassifier
from maskclippp.words.vocabulary import Vocabulary, class_names_of, registered_vocabulary

__all__ = [
    "RequestedWords",
    "TextClassifier",
    "Vocabulary",
    "class_names_of",
    "evaluation_vocabulary",
    "get_templates",
    "load_class_list",
    "parse_class_row",
    "read_vocabulary",
    "read_words",
    "registered_vocabulary",
    "training_vocabulary",
]
