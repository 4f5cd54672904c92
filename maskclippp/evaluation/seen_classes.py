"""Means over all, seen and unseen classes.

A class is seen when the training vocabulary shares a synonym with it; models report that as
``category_overlapping_mask``, one boolean per class.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.utils import comm

from maskclippp.errors import InputError

BoolArray = npt.NDArray[np.bool_]


class SeenClasses:
    """Remembers which classes a model calls seen, from its outputs, until ``reset``."""

    def __init__(self) -> None:
        self._mask: BoolArray | None = None

    def reset(self) -> None:
        """Forget the mask: the next model may have another training vocabulary."""
        self._mask = None

    def update(self, output: Mapping[str, Any]) -> None:
        """Take the mask from one image's output, unless there is one already."""
        mask = output.get("category_overlapping_mask")
        if self._mask is None and mask is not None:
            self._mask = torch.as_tensor(mask).cpu().numpy().astype(bool)

    def gather(self) -> BoolArray | None:
        """The mask [K] of the first rank that has one; main process only."""
        return next((mask for mask in comm.gather(self._mask) if mask is not None), None)


def class_means(
    name: str, values: npt.NDArray[np.float64], seen: BoolArray | None
) -> "OrderedDict[str, float]":
    """Means of per-class values [K], NaN left out: ``name``, ``name(S)`` seen, ``name(U)`` unseen.

    The latter two are given only when some classes are seen and some are not. The mean over no
    class is NaN.
    """
    means = OrderedDict([(name, nan_mean(values))])
    if seen is None:
        return means
    if seen.shape != values.shape:
        raise InputError(
            f"category_overlapping_mask has {seen.size} entries, the dataset {values.size} classes"
        )
    if seen.any() and not seen.all():
        means[f"{name}(S)"] = nan_mean(values[seen])
        means[f"{name}(U)"] = nan_mean(values[~seen])
    return means


def nan_mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
