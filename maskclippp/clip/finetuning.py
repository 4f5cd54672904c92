"""FINETUNE_TYPE: which parameters of a tower are trained."""

from collections.abc import Mapping, Sequence

from torch import nn


def set_trainable(
    module: nn.Module,
    finetune_type: str,
    prefixes_of_type: Mapping[str, Sequence[str]],
    owner: str,
) -> None:
    """Train exactly the parameters whose name starts with a prefix of ``finetune_type``.

    Raises:
        ValueError: ``finetune_type`` is not a key of ``prefixes_of_type``; lists the keys.
    """
    if finetune_type not in prefixes_of_type:
        raise ValueError(
            f"{owner}: FINETUNE_TYPE {finetune_type!r} is not one of {sorted(prefixes_of_type)}"
        )
    prefixes = tuple(prefixes_of_type[finetune_type])
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
