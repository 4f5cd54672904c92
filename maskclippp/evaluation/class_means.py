"""Means over classes: all, and those that training has or has not seen."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from maskclippp.errors import InputError

BoolArray = npt.NDArray[np.bool_]


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
