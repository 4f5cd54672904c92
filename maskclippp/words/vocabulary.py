"""A vocabulary: classes with their synonyms, and how two vocabularies relate.

All synonyms of all classes, in class order, are the rows of a text classifier. ``Ka`` is their
number, ``K`` the number of classes.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from torch import Tensor

from maskclippp.errors import InputError

Color = tuple[int, int, int]


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
        cls, names: Sequence[str], source: str = "class names", ids: Sequence[int] = ()
    ) -> "Vocabulary":
        """Split class names such as ``"person, child, girl"`` into synonyms.

        Raises:
            InputError: there is no class, or a class has an empty synonym.
        """
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

    def require_unique(self) -> "Vocabulary":
        """This vocabulary; an InputError lists synonyms that occur more than once."""
        classes_of: dict[str, list[int]] = {}
        for name, index in zip(self.synonyms, self.class_of_synonym.tolist(), strict=True):
            classes_of.setdefault(name, []).append(index)
        repeated = [
            f"{name!r} (classes {', '.join(map(str, classes))})"
            for name, classes in classes_of.items()
            if len(classes) > 1
        ]
        if repeated:
            raise InputError(
                f"{self.source}: {len(repeated)} synonyms occur more than once, which makes their "
                f"classes indistinguishable: {', '.join(repeated[:10])}; keep each in one class"
            )
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
        training step classify into the same synonyms.
        """
        rows, start = [], 0
        for count in self.num_synonyms:
            rows.append(start + random.randrange(count))
            start += count
        return rows

    def seen_in(self, train: "Vocabulary") -> Tensor:
        """Whether each class shares a synonym with any class of ``train``, bool [K]."""
        known = set(train.synonyms)
        return torch.tensor([not known.isdisjoint(synonyms) for synonyms in self.classes])

    def class_of_train_class(self, train: "Vocabulary") -> Tensor:
        """int64 [K_train + 1]: this vocabulary's class for every training class, K if none.

        A training class maps to the first class here that shares a synonym; the last entry (void)
        is K.
        """
        first_class: dict[str, int] = {}
        for index, synonyms in enumerate(self.classes):
            for name in synonyms:
                first_class.setdefault(name, index)
        none = len(self)
        table = [
            min((first_class.get(name, none) for name in synonyms), default=none)
            for synonyms in train.classes
        ]
        return torch.tensor([*table, none])


def split_synonyms(name: str, place: str) -> tuple[str, ...]:
    """``"person, child"`` -> ``("person", "child")``; an InputError starts with ``place``."""
    synonyms = tuple(part.strip() for part in name.split(","))
    if not all(synonyms):
        raise InputError(
            f"{place}: {name.strip()!r} has an empty synonym; separate synonyms by single commas"
        )
    return synonyms


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
    return Vocabulary.from_metadata(MetadataCatalog.get(dataset_name))
