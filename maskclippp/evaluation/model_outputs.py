"""What evaluators ask of a model's output for one image."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.images import check_same_size


def required(output: Mapping[str, Any], key: str, file_name: str, switch: str) -> Any:
    """``output[key]``; a ValueError names key, image and the config ``switch`` that makes it."""
    if output.get(key) is None:
        raise InputError(
            f"the model's output for {file_name} has no {key}, only {sorted(output)}: this "
            f"evaluation needs {switch}"
        )
    return output[key]


def check_mask_size(
    masks: Tensor, file_name: str, size: Sequence[int], annotation_file: str
) -> None:
    """Raise ValueError unless masks [n, h, w] have the annotation's ``size`` (height, width)."""
    if masks.ndim != 3:
        raise InputError(
            f"prediction for {file_name}: expected masks [n, {size[0]}, {size[1]}], found an array "
            f"of shape {tuple(masks.shape)}"
        )
    check_same_size(masks.shape[1:], f"prediction for {file_name}", size, annotation_file)
