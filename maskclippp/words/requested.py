"""The requested words: what a model is asked to find, and how that relates to its training."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.words.sources import evaluation_vocabulary
from maskclippp.words.vocabulary import Vocabulary


@dataclass(frozen=True)
class RequestedWords:
    """A test vocabulary of K classes and Ka synonyms.

    Attributes:
        vocabulary: the classes.
        thing_classes: numbers of the classes that have instances.
        train_vocabulary: the classes of the training set; None if there is none.

    Raises:
        InputError: a thing class that does not exist.
    """

    vocabulary: Vocabulary
    thing_classes: frozenset[int] = frozenset()
    train_vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        numbers = range(len(self))
        wrong = sorted(map(repr, (index for index in self.thing_classes if index not in numbers)))
        if wrong:
            raise InputError(f"thing classes [{', '.join(wrong)}] are not in 0..{len(self) - 1}")

    @classmethod
    def of_dataset(
        cls, name: str, selection: str, train_vocabulary: Vocabulary | None = None
    ) -> "RequestedWords":
        """The classes of a registered dataset, with synonyms as DATASETS.VOCABULARY selects them.

        Things are those of the metadata. Without that entry, a dataset with ``thing_classes`` only
        (instances) has nothing but things, and one with ``stuff_classes`` (semantic) has none.

        Raises:
            InputError, MissingFileError: see :func:`evaluation_vocabulary`.
        """
        # Importing the catalog registers the datasets, whose class lists this package reads.
        from detectron2.data import MetadataCatalog

        metadata = MetadataCatalog.get(name)
        vocabulary = evaluation_vocabulary(name, selection)
        positions = metadata.get("thing_dataset_id_to_contiguous_id", None)
        things: Iterable[int] = () if positions is None else positions.values()
        if positions is None and not metadata.get("stuff_classes", None):
            things = range(len(vocabulary))
        return cls(vocabulary, frozenset(things), train_vocabulary)

    def __len__(self) -> int:
        """K."""
        return len(self.vocabulary)

    @cached_property
    def seen(self) -> Tensor:
        """Whether each class shares a synonym with a training class, bool [K]."""
        return self.vocabulary.seen_in(self.train_vocabulary or Vocabulary(()))

    def class_of_synonym(self, device: torch.device) -> Tensor:
        """int64 [Ka] on ``device``, where it is copied to only once."""
        if device not in self._tables:
            self._tables[device] = self.vocabulary.class_of_synonym.to(device)
        return self._tables[device]

    def class_of_own_class(self, own_classes: Vocabulary) -> Tensor:
        """int64 [K' + 1]: the class for each of a closed generator's own classes, computed once.

        See :meth:`Vocabulary.class_of_train_class`.
        """
        if own_classes not in self._own_tables:
            self._own_tables[own_classes] = self.vocabulary.class_of_train_class(own_classes)
        return self._own_tables[own_classes]

    def provenance(self) -> dict[str, Any]:
        """For result files: ``test_vocabulary`` and, if there is one, ``train_vocabulary``.

        See :meth:`Vocabulary.provenance`.
        """
        found = {"test_vocabulary": self.vocabulary, "train_vocabulary": self.train_vocabulary}
        return {key: value.provenance() for key, value in found.items() if value is not None}

    @cached_property
    def _tables(self) -> dict[torch.device, Tensor]:
        return {}

    @cached_property
    def _own_tables(self) -> dict[Vocabulary, Tensor]:
        return {}
