"""From a map of labels to masks."""

from torch import Tensor


def masks_of_labels(label_map: Tensor, labels: Tensor) -> Tensor:
    """One mask per label: bool [n, h, w] of a label map [h, w] and the labels [n]."""
    return label_map[None] == labels[:, None, None]
