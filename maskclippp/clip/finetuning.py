"""FINETUNE_TYPE: which parameters of a tower are trained."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from maskclippp.errors import check_choice

# Shell patterns of parameter names; those after a "!" are left out.
Patterns = tuple[str, ...]


def set_trainable(
    module: nn.Module,
    finetune_type: str,
    patterns_of_type: Mapping[str, Patterns],
    owner: str,
) -> None:
    """Train exactly the parameters whose name matches the patterns of the type.

    Raises:
        InputError: ``finetune_type`` is not a key of ``patterns_of_type``; lists the keys.
    """
    check_choice(f"{owner}: FINETUNE_TYPE", finetune_type, sorted(patterns_of_type))
    patterns = patterns_of_type[finetune_type]
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(_matches(name, patterns))


def _matches(name: str, patterns: Patterns) -> bool:
    excluded = any(fnmatchcase(name, p[1:]) for p in patterns if p.startswith("!"))
    return not excluded and any(fnmatchcase(name, p) for p in patterns if not p.startswith("!"))
