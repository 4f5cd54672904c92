"""FINETUNE_TYPE: which parameters of a tower are trained."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from maskclippp.errors import InputError


def set_trainable(
    module: nn.Module,
    finetune_type: str,
    patterns_of_type: Mapping[str, Sequence[str]],
    owner: str,
) -> None:
    """Train exactly the parameters whose name matches a shell pattern of the type.

    Raises:
        InputError: ``finetune_type`` is not a key of ``patterns_of_type``; lists the keys.
    """
    if finetune_type not in patterns_of_type:
        raise InputError(
            f"{owner}: FINETUNE_TYPE {finetune_type!r} is not one of {sorted(patterns_of_type)}"
        )
    patterns = patterns_of_type[finetune_type]
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
