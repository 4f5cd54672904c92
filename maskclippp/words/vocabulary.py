"""Words: classes with their synonyms, prompt templates, and how two vocabularies relate.

A class is a list of synonyms. All synonyms of all classes, in class order, are the rows of a text
classifier; ``Ka`` is their number, ``K`` the number of classes.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from maskclippp.errors import InputError

_SIZES = ("small", "medium", "large")

# The ViLD-style prompts. A trained LinearPSM weighs templates by position: the order is fixed.
_T14 = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "t1": ("a photo of a {}.",),
    "t14": _T14,
    # open_clip ships CLIP's 80 ImageNet prompts as functions of the class name.
    "t80": tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES),
}


def get_templates(name: str, key: str = "TEMPLATES") -> tuple[str, ...]:
    """The prompt templates called ``name``; a ValueError lists the valid names of the ``key``."""
    if name not in TEMPLATES:
        raise InputError(f"MODEL.MASKCLIPPP.{key}: {name!r} is not one of {sorted(TEMPLATES)}")
    return TEMPLATES[name]


def class_names_of(metadata: Any) -> list[str]:
    """All classes of a registered dataset in contiguous order, synonyms included.

    They are its ``stuff_classes``, else its ``thing_classes``; a ValueError when it has neither.
    """
    for attribute in ("stuff_classes", "thing_classes"):
        names = metadata.get(attribute, None)
        if names:
            return list(names)
    raise InputError(
        f"dataset {metadata.name!r} has no class names: its metadata needs stuff_classes "
        "(all classes) or thing_classes; is the dataset name spelt right and registered?"
    )


@dataclass(frozen=True)
class Vocabulary:
    """Classes in order, each a non-empty tuple of synonyms.

    ``source`` says where the words come from; two vocabularies of the same words are equal.
    """

    classes: tuple[tuple[str, ...], ...]
    source: str = field(default="", compare=False)

    @classmethod
    def from_class_names(cls, names: Sequence[str], source: str = "word list") -> "Vocabulary":
        """Split class names such as ``"person, child, girl"`` at commas, blanks stripped.

        Raises:
            ValueError: when there is no class, or a class has an empty synonym; names ``source``.
        """
        if not names:
            raise InputError(f"{source}: no class names were given; expected at least one")
        classes = tuple(tuple(part.strip() for part in name.split(",")) for name in names)
        for index, synonyms in enumerate(classes):
            if not all(synonyms):
                raise InputError(
                    f"{source}: class {index} is {names[index]!r}, which has an empty name; "
                    "expected synonyms separated by single commas"
                )
        return cls(classes, source)

    @classmethod
    def from_metadata(cls, metadata: Any) -> "Vocabulary":
        """The classes of a registered dataset: ``stuff_classes``, else ``thing_classes``."""
        return cls.from_class_names(class_names_of(metadata), f"dataset {metadata.name!r}")

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def synonyms(self) -> tuple[str, ...]:
        """All Ka names, in class order."""
        return tuple(name for synonyms in self.classes for name in synonyms)

    @cached_property
    def num_synonyms(self) -> tuple[int, ...]:
        """How many names each of the K classes has."""
        return tuple(len(synonyms) for synonyms in self.classes)

    @cached_property
    def class_of_synonym(self) -> Tensor:
        """int64 [Ka]: the class of every name."""
        return torch.repeat_interleave(torch.tensor(self.num_synonyms))

    def provenance(self) -> dict[str, Any]:
        """Which words these are: ``source``, ``sha256``, and how many ``classes`` and ``names``.

        The hash is of the words themselves: one line per class, synonyms joined by commas.
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

        The trainer seeds that generator alike on every rank, so that all processes of a step
        classify into the same words.
        """
        rows, start = [], 0
        for count in self.num_synonyms:
            rows.append(start + random.randrange(count))
            start += count
        return rows

    def seen_in(self, train: "Vocabulary") -> Tensor:
        """bool [K]: the class shares a name with any class of ``train``."""
        known = set(train.synonyms)
        return torch.tensor([not known.isdisjoint(synonyms) for synonyms in self.classes])

    def class_of_train_class(self, train: "Vocabulary") -> Tensor:
        """int64 [K_train + 1]: this vocabulary's class for every train class, K where none.

        A train class goes to the first class here that shares a name; the last entry (void) is K.
        """
        first_class: dict[str, int] = {}
        for index, synonyms in enumerate(self.classes):
            for name in synonyms:
                first_class.setdefault(name, index)
        nowhere = len(self)
        table = [
            min((first_class.get(name, nowhere) for name in synonyms), default=nowhere)
            for synonyms in train.classes
        ]
        return torch.tensor([*table, nowhere])


def registered_vocabulary(dataset_name: str) -> Vocabulary:
    """The words under which a dataset is registered; ValueError when it has none."""
    return Vocabulary.from_metadata(MetadataCatalog.get(dataset_name))


def shared_vocabulary(
    datasets: Sequence[str],
    vocabulary_of: Callable[[str], Vocabulary] = registered_vocabulary,
) -> Vocabulary | None:
    """The one vocabulary of registered training sets; None for none.

    Raises:
        ValueError: the sets do not agree class by class.
    """
    vocabularies = [vocabulary_of(name) for name in datasets]
    for name, vocabulary in zip(datasets, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise InputError(
                f"DATASETS.TRAIN: {datasets[0]!r} ({len(vocabularies[0])} classes) and {name!r} "
                f"({len(vocabulary)} classes) have different classes; train on sets that share "
                "one vocabulary"
            )
    return vocabularies[0] if vocabularies else None
