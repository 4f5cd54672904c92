"""A vocabulary: classes with their synonyms, and how two vocabularies relate.

All synonyms of all classes, in class order, are the rows of a text classifier. ``Ka`` is their
number, ``K`` the number of classes.
"""

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.words.spelling import shortened, split_classes, split_synonyms, token_key

Color = tuple[int, int, int]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """Classes in order. Vocabularies are equal if their classes are.

    Attributes:
        classes: per class its synonyms, the plainest first.
        source: where the classes come from, for messages and result files.
        ids: per class its category id in annotations; empty if the classes are not numbered.
        is_thing: per class whether it has instances; empty if unknown.
        colors: per class its display color, RGB; empty if unknown.
    """

    classes: tuple[tuple[str, ...], ...]
    source: str = field(default="", compare=False)
    ids: tuple[int, ...] = field(default=(), compare=False)
    is_thing: tuple[bool, ...] = field(default=(), compare=False)
    colors: tuple[Color, ...] = field(default=(), compare=False)

    @classmethod
    def from_class_names(
        cls, names: str | Sequence[str], source: str = "class names", ids: Sequence[int] = ()
    ) -> "Vocabulary":
        """Split class names such as ``"person, child, girl"`` into synonyms.

        Args:
            names: one text per class; or one text, split by :func:`split_classes`.

        Raises:
            InputError: there is no class, names are no texts in an order, or a synonym is empty or
                holds characters that do not belong there.
        """
        if isinstance(names, str):
            names = split_classes(names, source)
        if not isinstance(names, Sequence) or isinstance(names, bytes):
            raise InputError(
                f"{source}: expected a list of texts such as ['cat, kitten', 'table'] or one text, "
                f"found {type(names).__name__}"
            )
        if not names:
            raise InputError(f"{source}: no class names were given; expected at least one")
        classes = (split_synonyms(name, f"{source}, class {i}") for i, name in enumerate(names))
        return cls(tuple(classes), source, tuple(ids))

    @classmethod
    def from_metadata(cls, metadata: Any) -> "Vocabulary":
        """The classes under which a dataset is registered, numbered by its category ids.

        Raises:
            InputError: the metadata has no class names.
        """
        names = class_names_of(metadata)
        kind = "stuff" if metadata.get("stuff_classes", None) else "thing"
        positions: Mapping[int, int] = metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
        ids = sorted(positions, key=lambda category: positions[category])
        return cls.from_class_names(names, f"dataset {metadata.name!r}", ids)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Per class its synonyms, joined by commas."""
        return tuple(", ".join(synonyms) for synonyms in self.classes)

    @cached_property
    def synonyms(self) -> tuple[str, ...]:
        """All Ka synonyms, in class order."""
        return tuple(name for synonyms in self.classes for name in synonyms)

    @cached_property
    def num_synonyms(self) -> tuple[int, ...]:
        """Number of synonyms of each of the K classes."""
        return tuple(len(synonyms) for synonyms in self.classes)

    @cached_property
    def class_of_synonym(self) -> Tensor:
        """int64 [Ka]: the class of every synonym."""
        return torch.repeat_interleave(torch.tensor(self.num_synonyms))

    @cached_property
    def positions(self) -> Mapping[int, int]:
        """The class number, 0..K-1, of every category id."""
        return {category: index for index, category in enumerate(self.ids)}

    def things(self) -> "Vocabulary":
        """The classes that have instances."""
        return self._select([index for index, thing in enumerate(self.is_thing) if thing])

    def by_ids(self, ids: Sequence[int]) -> "Vocabulary":
        """The classes with these category ids, in this order."""
        return self._select([self.positions[category] for category in ids])

    def _select(self, rows: Sequence[int]) -> "Vocabulary":
        return Vocabulary(
            tuple(self.classes[row] for row in rows),
            self.source,
            tuple(self.ids[row] for row in rows if self.ids),
            tuple(self.is_thing[row] for row in rows if self.is_thing),
            tuple(self.colors[row] for row in rows if self.colors),
        )

    def require_unique(self, *, warn_only: bool = False) -> "Vocabulary":
        """This vocabulary, if all its classes can be told apart, or with a warning.

        Raises:
            InputError: lists synonyms of different classes that are the same for CLIP's tokenizer
                (:func:`token_key`).
        """
        alike: dict[bytes, list[tuple[str, int]]] = {}
        for entry in zip(self.synonyms, self.class_of_synonym.tolist(), strict=True):
            alike.setdefault(token_key(entry[0]), []).append(entry)
        repeated = [
            " = ".join(dict.fromkeys(repr(shortened(name)) for name, _ in entries))
            + f" (classes {', '.join(str(index) for _, index in entries)})"
            for entries in alike.values()
            if len({index for _, index in entries}) > 1
        ]
        if repeated:
            problem = (
                f"{self.source}: {len(repeated)} synonyms occur more than once, which makes their "
                f"classes indistinguishable: {', '.join(repeated[:10])}"
            )
            if not warn_only:
                raise InputError(
                    f"{problem}; keep each in one class "
                    "(case, blanks, and what exceeds the context length do not count)"
                )
            _LOGGER.warning("%s", problem)
        # Four of OpenSeg's lists have such synonyms.
        twice = [name for names in self.classes for name in set(names) if names.count(name) > 1]
        if twice:
            _LOGGER.warning("%s: classes repeat their own synonyms %s", self.source, twice[:10])
        return self

    def provenance(self) -> dict[str, Any]:
        """For result files: ``source``, ``sha256``, number of ``classes`` and of ``names``.

        The hash is of the text with one class per line, synonyms joined by commas.
        """
        text = "\n".join(",".join(synonyms) for synonyms in self.classes)
        return {
            "source": self.source,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "classes": len(self),
            "names": len(self.synonyms),
        }

    def sample_synonyms(self) -> list[int]:
        """One row number (0..Ka-1) per class, drawn with Python's global generator.

        The trainer seeds that generator identically on every rank, so that all processes of a
        training step classify into the same synonyms. A class with one synonym draws nothing, so
        that the numbers of the others do not depend on it.
        """
        rows, start = [], 0
        for count in self.num_synonyms:
            rows.append(start + (random.randrange(count) if count > 1 else 0))
            start += count
        return rows

    def seen_in(self, train: "Vocabulary") -> Tensor:
        """Whether each class shares a synonym with any class of ``train``, bool [K].

        Synonyms are compared as the tokenizer sees them (:func:`token_key`).
        """
        known = set(map(token_key, train.synonyms))
        return torch.tensor(
            [not known.isdisjoint(map(token_key, synonyms)) for synonyms in self.classes]
        )

    def class_of_train_class(self, train: "Vocabulary") -> Tensor:
        """int64 [K_train + 1]: this vocabulary's class for every training class, K if none.

        A training class maps to the first class here that shares a synonym, as the tokenizer sees
        it; the last entry (void) is K.
        """
        first_class: dict[bytes, int] = {}
        for index, synonyms in enumerate(self.classes):
            for name in synonyms:
                first_class.setdefault(token_key(name), index)
        none = len(self)
        table = [
            min((first_class.get(token_key(name), none) for name in synonyms), default=none)
            for synonyms in train.classes
        ]
        return torch.tensor([*table, none])


def class_names_of(metadata: Any) -> list[str]:
    """Names of a registered dataset's classes: its ``stuff_classes``, else its ``thing_classes``.

    Raises:
        InputError: it has neither.
    """
    for attribute in ("stuff_classes", "thing_classes"):
        names = metadata.get(attribute, None)
        if names:
            return list(names)
    raise InputError(
        f"dataset {metadata.name!r} has no class names: its metadata needs stuff_classes "
        "(all classes) or thing_classes; is the name spelled correctly and registered?"
    )


def registered_vocabulary(dataset_name: str) -> Vocabulary:
    """The classes under which a dataset is registered; an InputError if it has none."""
    # Importing the catalog registers the datasets, whose classes are vocabularies.
    from detectron2.data import MetadataCatalog

    return Vocabulary.from_metadata(MetadataCatalog.get(dataset_name))
