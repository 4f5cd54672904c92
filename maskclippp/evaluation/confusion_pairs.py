"""Which classes are taken for which: the most frequent errors of a confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskclippp.evaluation.confusion import CountMatrix

MAX_PAIRS = 200


def confusion_pairs(
    confusion: CountMatrix, class_names: Sequence[str], limit: int = MAX_PAIRS
) -> list[dict[str, Any]]:
    """The pairs of different classes with the highest counts, most frequent first.

    Args:
        confusion: counts [K, K], rows predicted, columns true.

    Returns: rows with ``true``, ``predicted`` (class names), ``count`` and ``share``: percent of
        all that truly is the one class and is called the other.
    """
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    totals = confusion.sum(axis=0)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    rows = []
    for predicted, true in zip(*np.unravel_index(order, errors.shape), strict=True):
        count = int(errors[predicted, true])
        if not count:
            break
        rows.append(
            {
                "true": class_names[true],
                "predicted": class_names[predicted],
                "count": count,
                "share": 100 * count / int(totals[true]),
            }
        )
    return rows
