"""The vocabularies of a run, and means over the classes that training has and has not seen."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from maskclippp.errors import InputError
from maskclippp.words.vocabulary import Vocabulary

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RunWords:
    """What evaluators need to know about the test and training vocabularies.

    Attributes:
        seen: bool [K], the test classes that share a name with a training class; None if unknown.
        provenance: entries of the result files that identify the vocabularies.
    """

    seen: BoolArray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_vocabularies(cls, test: Vocabulary, train: Vocabulary | None) -> "RunWords":
        """``train`` None: a model that is not trained on any dataset has seen no class."""
        provenance = {"test_vocabulary": test.provenance()}
        if train is None:
            return cls(None, provenance)
        return cls(
            test.seen_in(train).numpy(), {**provenance, "train_vocabulary": train.provenance()}
        )


NO_WORDS = RunWords()


def class_means(
    name: str, values: npt.NDArray[np.float64], seen: BoolArray | None
) -> "OrderedDict[str, float]":
    """Means of per-class values [K] over all (``name``), seen (S), and unseen (U) classes.

    NaN values are left out; the mean over no class is NaN. ``name(S)`` and ``name(U)`` are given
    only if some classes are seen and some are not.
    """
    means = OrderedDict([(name, nan_mean(values))])
    if seen is None:
        return means
    if seen.shape != values.shape:
        raise InputError(
            f"the seen mask has {seen.size} entries, the dataset {values.size} classes"
        )
    if seen.any() and not seen.all():
        means[f"{name}(S)"] = nan_mean(values[seen])
        means[f"{name}(U)"] = nan_mean(values[~seen])
    return means


def nan_mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
